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

import structlog

from forebay.errors import SpoolUnavailable
from forebay.pipeline.aside import Aside
from forebay.pipeline.channel import Channel
from forebay.pipeline.journal import Journal
from forebay.pipeline.reading import GroupStore, load_group
from forebay.pipeline.trial import NOBODY, Trial
from forebay.spool.records import GroupDamaged, StoredGroup

log = structlog.get_logger("forebay.redelivery")

RETRY_SOON_S = 5.0
"""When to try the events again that a healthy sink was too busy for."""

LOAD_BULKS_MAX = 4


class Redelivery:
    """Brings pending events back into the channel."""

    def __init__(
        self, store: GroupStore, journal: Journal, channel: Channel, aside: Aside, trial: Trial, interval_s: float
    ) -> None:
        self._store = store
        self._journal = journal
        self._channel = channel
        self._aside = aside
        self._trial = trial
        self._on_trial: frozenset[int] = NOBODY
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._after_id = 0
        self._passes = 0
        self._retry_timer: asyncio.TimerHandle | None = None

    def restart(self) -> None:
        """Begin a pass now: the sink is back, it is time, or somebody asked."""
        self._after_id = 0
        # One that begins while another is at its first row counts too: what that went over may be pending by now.
        self._passes += 1
        self._wake.set()

    def restart_soon(self) -> None:
        """Begin a pass shortly: the sink is well, but did not take everything."""
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
        await self._journal.wait_released(self._on_trial)
        await self._channel.wait_room(*self._journal.limits)
        await self._journal.wait_settling()
        passes = self._passes
        try:
            groups = await self._store.load(self._after_id, self._aside, self._portion())
        except GroupDamaged as error:
            # It holds up nothing that lies behind it, and is reported at every pass.
            log.error("group_damaged", cause=str(error))  # noqa: TRY400 - the cause says it all
            if passes == self._passes:
                self._after_id = error.group_id
            return True
        if passes != self._passes:
            return True  # a new pass has begun meanwhile
        going = [group for group in groups if not self._aside.takes(group)]
        self._on_trial = await self._trial.begin(group.id for group in going)
        left = self._offer(going)
        if passes == self._passes and groups:
            self._after_id = left[0].id - 1 if left else groups[-1].id
        if left:
            await self._channel.wait_room(len(left[0].entries), sum(map(len, left[0].entries)))
        return bool(groups)

    def _offer(self, groups: list[StoredGroup]) -> list[StoredGroup]:
        """Put groups into the channel in their order; return those that it has no room for."""
        for number, group in enumerate(groups):
            # What is on trial is to be over soon: the next waits for it.
            on_trial = group.id in self._on_trial
            if not self._journal.redeliver(group, on_trial=on_trial, at_once=on_trial):
                left = groups[number:]
                self._journal.put_back(
                    [self._journal.take_up(group, on_trial=True) for group in left if group.id in self._on_trial]
                )
                return left
        return []

    async def _load_probes(self) -> None:
        """Move one group of each index whose back-off is over into the channel."""
        for row_id in self._aside.holds.due_rows():
            if row_id is None:
                self._after_id = 0  # a pass finds one, if there is any
                continue
            await self._channel.wait_room(*self._journal.limits)
            await self._journal.wait_settling()
            self._aside.holds.forget(row_id)
            group = await load_group(self._store, row_id, self._journal.ledger.held)
            if group is not None and not self._aside.takes(group):
                self._journal.redeliver(group, at_once=True)

    def _portion(self) -> tuple[int, int]:
        """Return how many events and bytes to load at once: what there is room for, and no more than a few bulks.

        Commits wait while groups are being loaded.
        """
        events, entry_bytes = self._channel.room
        events_max, bytes_max = self._journal.limits
        return min(events, LOAD_BULKS_MAX * events_max), min(entry_bytes, bytes_max)
