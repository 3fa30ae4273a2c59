"""The requests of commands to the owner of a spool: a pass of redelivery now, dead letters back, pending events buried.

A *burial* makes dead letters of pending events, though nothing proves that they are at fault. The owner goes through
the groups that are meant, as many at once as a bulk takes, and settles them like those of a bulk. Those in memory leave
the channel for it: of one that the sink has taken a part of, only the rest is pending then. Of those that are on their
way to the sink the end is waited for: one that it takes is no dead letter. Groups that come back are found by going
through the spool once more, from the first of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from forebay.clock import now_ms
from forebay.errors import GroupDamaged, SpoolUnavailable
from forebay.pipeline.channel import Channel
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.journal import Journal
from forebay.pipeline.ledger import Ledger
from forebay.pipeline.settlement import abandon, bury
from forebay.pipeline.wake import Wake
from forebay.spool.beside.requests import Burial
from forebay.spool.records import StoredGroup

log = structlog.get_logger("forebay.requests")

POLL_S = 1.0
"""How often the requests of commands are looked for."""

REPLAY_EVENTS_MAX = 1000
"""How many dead letters go into one group."""

LOADED_POLL_S = 0.1
"""How often to look whether groups have left memory."""

LOADED_S = 60.0
"""How long groups in memory are waited for while nothing else is found, beside the time that a bulk may take."""

BURIED = "buried"
"""The `error_type` of the dead letter."""


class RequestStore(Protocol):
    """The part of the spool that requests are read from."""

    async def take_requests(self) -> frozenset[str]:
        """Take the requests of commands, but for burials."""

    async def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        """Move dead letters that are to be replayed into a new group; return its events and stored bytes."""

    async def list_burials(self) -> list[Burial]:
        """Return the burials that commands asked for and that are not done."""

    async def forget_burial(self, burial: Burial) -> None:
        """Take note that a burial is done."""


class Requests:
    """Carries out the requests of commands."""

    def __init__(
        self,
        store: RequestStore,
        ledger: Ledger,
        journal: Journal,
        channel: Channel,
        evidence: Evidence,
        wake: Wake,
        bulk_timeout_s: float,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._journal = journal
        self._channel = channel
        self._evidence = evidence
        self._wake = wake
        self._patience_s = LOADED_S + bulk_timeout_s
        self._loop = asyncio.get_running_loop()
        # A process that ended, or a spool that failed, may have left off in the middle of a replay.
        self._is_replaying = True

    async def run(self) -> None:
        """Do requests for ever; a burial, which may take minutes, holds up no replay."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(self._replay_requested))
            tasks.create_task(self._watch(self._bury_requested))

    async def _watch(self, work: Callable[[], Awaitable[None]]) -> None:
        told = ""
        while True:
            try:
                await work()
                told = ""
            except SpoolUnavailable as error:
                if str(error) != told:
                    log.warning("spool_unavailable", work="requests", cause=str(error), consequence="tried again later")
                told = str(error)
            await asyncio.sleep(POLL_S)

    async def _replay_requested(self) -> None:
        if await self._store.take_requests():
            # Whatever was asked for, a pass does no harm.
            self._wake.pass_now()
            self._is_replaying = True
        while self._is_replaying:
            events, stored_bytes = await self._store.replay(self._journal.new_id(), REPLAY_EVENTS_MAX)
            self._is_replaying = events > 0
            if events:
                self._ledger.store(events, stored_bytes)
                self._wake.go_on()
                log.info("dead_letters_replayed", events=events)

    async def _bury_requested(self) -> None:
        for burial in await self._store.list_burials():
            await self._do(burial)
            # Not sooner: whoever is interrupted does it once more at the next start, to those that are left.
            await self._store.forget_burial(burial)
            # Others may have left the channel for it.
            self._wake.pass_now()

    async def _do(self, burial: Burial) -> None:
        events, after_id = 0, 0
        give_up_at = self._loop.time() + self._patience_s
        while True:
            left: set[int] = set()
            found = await self._go_through(burial, after_id, left)
            events += found
            if found:
                give_up_at = self._loop.time() + self._patience_s
            if not left or self._loop.time() >= give_up_at:
                break
            # The events that are left of a group have its row or newer ones.
            after_id = min(left) - 1
            await self._free(left, give_up_at)
        log.info("pending_events_buried", events=events, groups_left_in_memory=len(left))

    async def _go_through(self, burial: Burial, after_id: int, left: set[int]) -> int:
        """Bury the meant events of groups behind one; return how many, and add rows that are in memory to `left`."""
        events = 0
        while True:
            await self._journal.wait_settling()
            if self._journal.refusal:
                # A row leaves in the transaction that needs room for its letters; while that waits nothing else goes.
                raise SpoolUnavailable(self._journal.refusal)
            left |= self._find_loaded(burial, after_id)
            try:
                groups = await self._ledger.load(after_id, self._journal.limits, burial.wanted)
            except GroupDamaged as error:
                log.error("group_damaged", cause=str(error))  # noqa: TRY400 - the cause says it all
                after_id = error.group_id
                continue
            left |= self._find_loaded(burial, after_id)
            if not groups:
                return events
            after_id = groups[-1].id
            events += await self._bury(burial, groups)

    def _find_loaded(self, burial: Burial, after_id: int) -> set[int]:
        """Return the rows of groups in memory that may be meant."""
        return {
            row_id
            for row_id, group in self._ledger.loaded.items()
            if row_id > after_id
            and burial.includes(group.received_at_ms)
            and burial.wanted.includes(group.index, group.history.refused_status)
        }

    async def _bury(self, burial: Burial, groups: list[StoredGroup]) -> int:
        meant = [group for group in groups if _is_meant(group, burial)]
        events = 0
        for stored in meant:
            status = stored.history.refused_status
            reason = f"by an operator; the last refusal had the status {status}" if status else "by an operator"
            settlement = bury(self._ledger.take_up(stored), reason, now_ms(), BURIED, burial.fits)
            events += len(settlement.transaction.dead)
            self._evidence.forget(settlement.transaction.deletes)
            self._journal.settle(settlement)
        await self._ledger.wait_released([stored.id for stored in meant])
        return events

    async def _free(self, row_ids: set[int], give_up_at: float) -> None:
        """Have groups out of memory, as far as they are not on their way to the sink, and wait for the others."""
        loaded = self._ledger.loaded
        while left := [loaded[row_id] for row_id in row_ids if row_id in loaded]:
            for index in {group.index for group in left}:
                groups = self._channel.withdraw(index, begun=True)
                for settlement in abandon(groups, now_ms(), self._journal.new_id, self._evidence):
                    self._journal.settle(settlement)
            if row_ids.isdisjoint(loaded) or self._loop.time() >= give_up_at:
                return
            await asyncio.sleep(LOADED_POLL_S)


def _is_meant(stored: StoredGroup, burial: Burial) -> bool:
    return burial.includes(stored.received_at_ms) and any(
        burial.fits(stored.originals.get(entry, entry)) for entry in stored.entries
    )
