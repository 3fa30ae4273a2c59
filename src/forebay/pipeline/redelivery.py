"""Redelivery: pending events go back into the channel, oldest first, only as many as there is room for.

A pass goes through the spool from its oldest group. One begins every `retry_interval_s`, which makes a *round*, as soon
as the sink or an index is back, and when an operator asks. What overflowed since is found by going on from where the
last pass stopped; what failed again lies behind that point and waits for the next pass, so nothing is tried in a tight
circle. A pass that begins shortly after a busy sink left something leaves out what was refused with a status that may
pass in time.

Groups of an index on hold stay where they are (`holds.py`): a pass does not even read them.

Invariant 6: nothing is loaded that the channel has no room for, however large the spool is.
"""

from __future__ import annotations

import asyncio

import structlog

from forebay.errors import SpoolUnavailable
from forebay.pipeline.channel import Channel
from forebay.pipeline.evidence import OWN_FAULT
from forebay.pipeline.findings import Findings
from forebay.pipeline.journal import Journal
from forebay.pipeline.reading import GroupStore, load_groups
from forebay.pipeline.suspects import Suspects
from forebay.spool.records import GroupDamaged, StoredGroup, Wanted

log = structlog.get_logger("forebay.redelivery")

RETRY_SOON_S = 5.0
"""When to try the events again that a healthy sink was too busy for."""

LOAD_BULKS_MAX = 4


class Redelivery:
    """Brings pending events back into the channel."""

    def __init__(
        self,
        store: GroupStore,
        journal: Journal,
        channel: Channel,
        findings: Findings,
        suspects: Suspects,
        interval_s: float,
    ) -> None:
        self._store = store
        self._journal = journal
        self._channel = channel
        self._findings = findings
        self._suspects = suspects
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._after_id = 0
        self._passes = 0
        self._is_whole = False
        self._retry_timer: asyncio.TimerHandle | None = None

    def restart(self) -> None:
        """Begin a pass through everything now: the sink or an index is back, it is time, or somebody asked."""
        self._is_whole = True
        self._restart()

    def _restart(self) -> None:
        self._after_id = 0
        # One that begins while another is at its first row counts too: what that went over may be pending by now.
        self._passes += 1
        self._wake.set()

    def restart_soon(self) -> None:
        """Begin a pass shortly, through what need not wait: the sink is well, but did not take everything."""
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
        self._restart()

    async def _begin_passes(self) -> None:
        while True:
            self._findings.evidence.rounds += 1
            self.restart()
            await asyncio.sleep(self._interval_s)

    async def _redeliver(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._journal.ledger.pending_events and await self._load_some():
                    pass
                self._is_whole = False
            except SpoolUnavailable as error:
                log.warning("spool_unavailable", cause=str(error))

    async def _load_some(self) -> bool:
        """Move the next pending groups into the channel; return whether there may be more."""
        await self._channel.wait_room(*self._journal.limits)
        await self._journal.wait_settling()
        passes = self._passes
        try:
            groups = await load_groups(self._store, self._after_id, self._suspects, self._portion(), self._wanted)
        except GroupDamaged as error:
            # It holds up nothing that lies behind it, and is reported at every pass.
            log.error("group_damaged", cause=str(error))  # noqa: TRY400 - the cause says it all
            if passes == self._passes:
                self._after_id = error.group_id
            return True
        if passes != self._passes:
            return True  # a new pass has begun meanwhile
        # An index may have been put on hold while they were read.
        going = [group for group in groups if group.index_name not in self._findings.holds]
        left = self._offer([group for group in going if not self._suspects.keep(group)])
        if groups:
            self._after_id = left[0].id - 1 if left else groups[-1].id
        if left:
            await self._channel.wait_room(len(left[0].entries), sum(map(len, left[0].entries)))
        return bool(groups)

    @property
    def _wanted(self) -> Wanted:
        statuses = None if self._is_whole else OWN_FAULT | {0}
        return Wanted(indices_left_out=self._findings.holds.indices, statuses=statuses)

    def _offer(self, groups: list[StoredGroup]) -> list[StoredGroup]:
        """Put groups into the channel in their order; return those that it has no room for."""
        for number, group in enumerate(groups):
            if not self._journal.redeliver(group):
                return groups[number:]
        return []

    def _portion(self) -> tuple[int, int]:
        """Return how many events and bytes to load at once: what there is room for, and no more than a few bulks.

        Commits wait while groups are being loaded.
        """
        events, entry_bytes = self._channel.room
        events_max, bytes_max = self._journal.limits
        return min(events, LOAD_BULKS_MAX * events_max), min(entry_bytes, bytes_max)
