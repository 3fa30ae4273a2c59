"""Redelivery: pending events go back into the channel, oldest first, only as many as there is room for.

A pass goes through the spool from its oldest group. It begins every `retry_interval_s`, as soon as the sink is back,
and when an operator asks. What overflowed since is found by going on from where the last pass stopped; what failed
again lies behind that point and waits for the next pass, so nothing is tried in a tight circle.

Groups of an index on hold stay where they are (`holds.py`); a pass goes over them to what lies behind. When the
back-off of a hold is over, one of its groups goes as the probe.

Invariant 6: nothing is loaded that the channel has no room for, however large the spool is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Protocol

import structlog

from forebay.errors import SpoolUnavailable
from forebay.pipeline.channel import Channel
from forebay.pipeline.holds import Holds
from forebay.pipeline.journal import Journal
from forebay.pipeline.packing import GroupLimits
from forebay.spool.records import GroupDamaged, StoredGroup

log = structlog.get_logger("forebay.redelivery")

POLL_S = 1.0
"""How often the requests of commands are looked for."""

RETRY_SOON_S = 5.0
"""When to try the events again that a healthy sink was too busy for."""

LOAD_BULKS_MAX = 4
ONE_GROUP = (1, 1)
"""A room in which the spool finds one group, whatever its size."""

REPLAY_EVENTS_MAX = 1000
"""How many dead letters go into one group."""


class Store(Protocol):
    """The part of the spool that redelivery reads from."""

    async def load(self, after_id: int, held: Container[int], room: tuple[int, int]) -> list[StoredGroup]:
        """Read pending groups."""

    async def take_requests(self) -> frozenset[str]:
        """Take what commands asked for."""

    async def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        """Move dead letters back."""


class _Known:
    """Groups that need not be read: those in memory, and those known to wait. Asked by the spool's thread too."""

    def __init__(self, held: Container[int], holds: Container[int]) -> None:
        self._held = held
        self._holds = holds

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._held or row_id in self._holds


class Redelivery:
    """Brings pending events back into the channel."""

    def __init__(
        self, store: Store, journal: Journal, channel: Channel, holds: Holds, interval_s: float, limits: GroupLimits
    ) -> None:
        self._store = store
        self._journal = journal
        self._channel = channel
        self._holds = holds
        self._known = _Known(journal.ledger.held, holds)
        self._interval_s = interval_s
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._after_id = 0
        self._retry_timer: asyncio.TimerHandle | None = None

    def restart(self) -> None:
        """Begin a pass now: the sink is back, or somebody asked."""
        self._after_id = 0
        self._wake.set()

    def restart_soon(self) -> None:
        """Begin a pass shortly: the sink is well, but took not all of a bulk."""
        if self._retry_timer is None:
            self._retry_timer = self._loop.call_later(min(RETRY_SOON_S, self._interval_s), self._retry)

    def proceed(self) -> None:
        """Look for what has become pending since the last pass: the channel was full for a while."""
        self._wake.set()

    async def run(self) -> None:
        """Redeliver for ever."""
        ledger = self._journal.ledger
        if ledger.stored_events:
            log.info("spool_recovered", pending_events=ledger.pending_events, stored_bytes=ledger.stored_bytes)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_requests())
            tasks.create_task(self._begin_passes())
            tasks.create_task(self._redeliver())

    def _retry(self) -> None:
        self._retry_timer = None
        self.restart()

    async def _begin_passes(self) -> None:
        while True:
            self.restart()
            await asyncio.sleep(self._interval_s)

    async def _redeliver(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._load_probes()
                while self._journal.ledger.pending_events and await self._load_some():
                    pass
            except SpoolUnavailable as error:
                log.warning("spool_unavailable", cause=str(error))

    async def _load_some(self) -> bool:
        """Move the next pending groups into the channel; return whether there may be more."""
        await self._channel.wait_room(*self._limits)
        await self._journal.wait_settling()
        after_id = self._after_id
        try:
            groups = await self._store.load(after_id, self._known, self._portion())
        except GroupDamaged as error:
            # It holds up nothing that lies behind it, and is reported at every pass.
            log.error("group_damaged", cause=str(error))  # noqa: TRY400 - the cause says it all
            if after_id == self._after_id:
                self._after_id = error.group_id
            return True
        if after_id != self._after_id:
            return True  # a new pass has begun meanwhile
        for group in groups:
            waits = self._holds.keep(group.id, group.entries, self._journal.ledger.held)
            if not waits and not self._journal.redeliver(group):
                await self._channel.wait_room(len(group.entries), sum(map(len, group.entries)))
                return True
            self._after_id = group.id
        return bool(groups)

    async def _load_probes(self) -> None:
        """Move one group of each index whose back-off is over into the channel."""
        for row_id in self._holds.due_rows():
            if row_id is None:
                self._after_id = 0  # a pass finds one, if there is any
                continue
            await self._channel.wait_room(*self._limits)
            await self._journal.wait_settling()
            self._holds.forget(row_id)
            held = self._journal.ledger.held
            groups = await self._store.load(row_id - 1, held, ONE_GROUP)
            if groups and groups[0].id == row_id and not self._holds.keep(row_id, groups[0].entries, held):
                self._journal.redeliver(groups[0])

    def _portion(self) -> tuple[int, int]:
        """Return how many events and bytes to load at once: what there is room for, and no more than a few bulks.

        Commits wait while groups are being loaded.
        """
        events, entry_bytes = self._channel.room
        return min(events, LOAD_BULKS_MAX * self._limits.events_max), min(entry_bytes, self._limits.bytes_max)

    async def _watch_requests(self) -> None:
        # A process that ended, or a spool that failed, may have left off in the middle of a replay.
        left_off = True
        while True:
            try:
                if await self._store.take_requests():
                    left_off = True
                    self.restart()
                if left_off:
                    await self._replay()
                    left_off = False
            except SpoolUnavailable as error:
                log.warning("spool_unavailable", cause=str(error))
            await asyncio.sleep(POLL_S)

    async def _replay(self) -> None:
        while True:
            events, stored_bytes = await self._store.replay(self._journal.new_id(), REPLAY_EVENTS_MAX)
            if not events:
                return
            self._journal.ledger.store(events, stored_bytes)
            self.proceed()
            log.info("dead_letters_replayed", events=events)
