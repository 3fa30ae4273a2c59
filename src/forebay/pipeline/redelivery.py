"""Redelivery: pending events go back into the channel, oldest first, only as many as there is room for.

A pass goes through the spool from its oldest group. One begins every `retry_interval_s`, which makes a *round*, and
whenever somebody says so (`wake.py`). Events that overflowed since are found by going on behind the last pass; events
that failed again lie before that point and wait for the next pass, so nothing is tried in a tight circle. A pass that
begins shortly after a busy sink left something leaves out events that were refused with a status that may pass in time.
Groups of an index on hold stay in the spool (`holds.py`): a pass does not even read them. Suspects go in bulks of
their own (`separate_bulks.py`).

Invariant 6: nothing is loaded that the channel has no room for, however large the spool is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from forebay.errors import GroupDamaged, SpoolUnavailable
from forebay.pipeline.channel import Channel
from forebay.pipeline.evidence import OWN_FAULT, Evidence
from forebay.pipeline.group import Group
from forebay.pipeline.holds import Holds
from forebay.pipeline.journal import Journal
from forebay.pipeline.ledger import Ledger
from forebay.pipeline.wake import Wake
from forebay.spool.loading import Wanted
from forebay.spool.records import StoredGroup
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.redelivery")

LOAD_BULKS_MAX = 4
"""How many bulks are loaded at once; commits wait meanwhile."""

LASTING = OWN_FAULT | {0}
"""Statuses of a last refusal that no time changes, and that of a group that was never refused."""


class Redelivery:
    """Brings pending events back into the channel."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        channel: Channel,
        holds: Holds,
        evidence: Evidence,
        wake: Wake,
        set_apart: Callable[[StoredGroup], bool],
        counters: Counters,
    ) -> None:
        """Take the parts; `set_apart` takes a group over if it is suspect, and returns whether it did."""
        self._ledger = ledger
        self._journal = journal
        self._channel = channel
        self._holds = holds
        self._evidence = evidence
        self._wake = wake
        self._set_apart = set_apart
        self._counters = counters
        self._after_id = 0
        self._pass = 0

    async def run(self, interval_s: float) -> None:
        """Redeliver for ever, in rounds of so many seconds."""
        if self._ledger.stored_events:
            log.info(
                "spool_recovered", pending_events=self._ledger.pending_events, stored_bytes=self._ledger.stored_bytes
            )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._begin_rounds(interval_s))
            tasks.create_task(self._redeliver())

    async def _begin_rounds(self, interval_s: float) -> None:
        while True:
            self._evidence.rounds += 1
            self._wake.pass_now()
            await asyncio.sleep(interval_s)

    async def _redeliver(self) -> None:
        while True:
            await self._wake.wait()
            try:
                while self._ledger.pending_events and await self._load_some():
                    pass
                self._wake.is_whole = False
            except SpoolUnavailable as error:
                log.warning("spool_unavailable", work="redelivery", cause=str(error), consequence="tried again later")

    async def _load_some(self) -> bool:
        """Move the next pending groups into the channel; return whether there may be more."""
        await self._channel.wait_room(*self._journal.limits)
        await self._journal.wait_settling()
        if self._pass != self._wake.passes:
            self._pass, self._after_id = self._wake.passes, 0
        wanted = Wanted(indices_left_out=self._holds.indices, statuses=None if self._wake.is_whole else LASTING)
        try:
            groups = await self._ledger.load(self._after_id, self._room, wanted, with_set_apart=False)
        except GroupDamaged as error:
            # It holds up nothing that lies behind it, and is reported at every pass.
            log.error("group_damaged", cause=str(error))  # noqa: TRY400 - the cause says it all
            self._after_id = error.group_id
            return True
        if self._pass != self._wake.passes:
            return True  # a new pass has begun meanwhile
        # An index may have been put on hold while they were read.
        going = [group for group in groups if group.index_name not in self._holds]
        left = self._offer([group for group in going if not self._set_apart(group)])
        if groups:
            self._after_id = left[0].id - 1 if left else groups[-1].id
        if left:
            await self._channel.wait_room(len(left[0].entries), sum(map(len, left[0].entries)))
        return bool(groups)

    def _offer(self, groups: list[StoredGroup]) -> list[StoredGroup]:
        """Put groups into the channel in their order; return those that it has no room for."""
        for number, stored in enumerate(groups):
            group = Group.from_row(stored)
            if not self._channel.offer(group):
                return groups[number:]
            self._ledger.add(group)
            self._counters.redelivered += len(group.entries)
        return []

    @property
    def _room(self) -> tuple[int, int]:
        """The events and bytes to load at once: as many as there is room for, and no more than a few bulks."""
        events, entry_bytes = self._channel.room
        events_max, bytes_max = self._journal.limits
        return min(events, LOAD_BULKS_MAX * events_max), min(entry_bytes, bytes_max)
