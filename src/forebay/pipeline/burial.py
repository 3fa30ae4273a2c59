"""Burials: an operator wants dead letters of pending events, though nothing proves that they are at fault.

The owner goes through the groups that are meant, as many at once as a bulk takes, and settles them like those of a
bulk. Those in memory leave the channel for it. Of those that are on their way to the sink the end is waited for: one
that it takes is no dead letter. What comes back is found by going through the spool once more, from where it lies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from forebay.clock import now_ms
from forebay.errors import SpoolUnavailable
from forebay.pipeline.channel import Channel
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.journal import Journal
from forebay.pipeline.reading import GroupStore, load_groups
from forebay.pipeline.settlement import bury
from forebay.spool.burials import Burial
from forebay.spool.records import GroupDamaged, StoredGroup

log = structlog.get_logger("forebay.burial")

POLL_S = 1.0
"""How often the requests of commands are looked for."""

HELD_POLL_S = 0.1
"""How often to look whether groups have left memory."""

HELD_S = 60.0
"""How long groups in memory are waited for while nothing else is found, beside the time that a bulk may take."""

BURIED = "buried"
"""The `error_type` of the dead letter."""


class BurialStore(GroupStore, Protocol):
    """The part of the spool that burials need."""

    async def list_burials(self) -> list[Burial]:
        """Return the burials that commands asked for and that are not done."""

    async def forget_burial(self, burial: Burial) -> None:
        """Take note that a burial is done."""


class Burials:
    """Does the burials that commands ask for.

    Attributes:
        on_done: called behind each: others may have left the channel for it.
    """

    def __init__(
        self, store: BurialStore, journal: Journal, channel: Channel, evidence: Evidence, bulk_timeout_s: float
    ) -> None:
        self._store = store
        self._journal = journal
        self._channel = channel
        self._evidence = evidence
        self._patience_s = HELD_S + bulk_timeout_s
        self._loop = asyncio.get_running_loop()
        self.on_done: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Watch for burials for ever."""
        told = ""
        while True:
            try:
                for burial in await self._store.list_burials():
                    await self._do(burial)
                    # Not sooner: whoever is interrupted does it once more at the next start, to those that are left.
                    await self._store.forget_burial(burial)
                    self.on_done()
                told = ""
            except SpoolUnavailable as error:
                if str(error) != told:
                    log.warning("spool_unavailable", cause=str(error))
                told = str(error)
            await asyncio.sleep(POLL_S)

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
            # What is left of a group has its row or newer ones.
            after_id = min(left) - 1
            await self._free(left, give_up_at)
        log.info("pending_events_buried", events=events, groups_left_in_memory=len(left))

    def _find_in_memory(self, burial: Burial) -> set[int]:
        """Return the rows of groups in memory that may be meant."""
        return {
            row_id
            for row_id, group in self._journal.ledger.held.items()
            if group.received_at_ms < burial.received_before_ms
            and burial.wanted.includes(group.index, group.history.refused_status)
        }

    async def _go_through(self, burial: Burial, after_id: int, left: set[int]) -> int:
        """Bury the meant events of groups behind one; return how many, and add rows that are in memory to `left`."""
        events = 0
        while True:
            await self._journal.wait_settling()
            if self._journal.refusal:
                # A row leaves in the transaction that needs room for its letters; while that waits nothing else goes.
                raise SpoolUnavailable(self._journal.refusal)
            left |= self._find_in_memory(burial)
            try:
                groups = await load_groups(
                    self._store, after_id, self._journal.ledger.held, self._journal.limits, burial.wanted
                )
            except GroupDamaged as error:
                log.error("group_damaged", cause=str(error))  # noqa: TRY400 - the cause says it all
                after_id = error.group_id
                continue
            left |= self._find_in_memory(burial)
            if not groups:
                return events
            after_id = groups[-1].id
            events += await self._bury(burial, groups)

    async def _bury(self, burial: Burial, groups: list[StoredGroup]) -> int:
        meant = [group for group in groups if _is_meant(group, burial)]
        events = 0
        for stored in meant:
            status = stored.history.refused_status
            reason = f"by an operator; the last refusal had the status {status}" if status else "by an operator"
            group = self._journal.take_up(stored)
            settlement = bury(group, reason, now_ms(), BURIED, burial.fits)
            events += len(settlement.transaction.dead)
            self._evidence.forget(settlement.transaction.deletes)
            self._journal.settle(settlement)
        await self._journal.wait_released([stored.id for stored in meant])
        return events

    async def _free(self, row_ids: set[int], give_up_at: float) -> None:
        """Have groups out of memory, as far as they are not on their way to the sink, and wait for the others."""
        held = self._journal.ledger.held
        while left := [held[row_id] for row_id in row_ids if row_id in held]:
            for index in {group.index for group in left}:
                self._journal.put_back(self._channel.withdraw(index, begun=True))
            if row_ids.isdisjoint(held) or self._loop.time() >= give_up_at:
                return
            await asyncio.sleep(HELD_POLL_S)


def _is_meant(stored: StoredGroup, burial: Burial) -> bool:
    return stored.received_at_ms < burial.received_before_ms and any(
        burial.fits(stored.originals.get(entry, entry)) for entry in stored.entries
    )
