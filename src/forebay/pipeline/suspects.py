"""Suspects: groups with strikes enough to be poison go one after the other, each in a bulk of its own.

They go beside everything else and past the gate, so that one that takes all the time there is holds up no other event.
In each process the first waits until the sink has taken something, and one that failed until it has taken something
since; where nothing else is taken, for a whole interval of redelivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import structlog

from forebay.clock import now_ms
from forebay.errors import SpoolUnavailable
from forebay.pipeline.delivery import Delivery
from forebay.pipeline.findings import Findings
from forebay.pipeline.gate import Health
from forebay.pipeline.journal import Journal
from forebay.pipeline.poison import OTHERS_MIN, STRIKES_MAX, Step, blocks, next_step
from forebay.pipeline.reading import GroupStore, load_group
from forebay.pipeline.settlement import bury, halve_group
from forebay.spool.records import StoredGroup

log = structlog.get_logger("forebay.suspects")

POLL_S = 0.1
"""How often to look whether the next suspect may go, while there are any."""


UNKNOWN = "in an earlier run"


class Pace(NamedTuple):
    """How soon a suspect may go again: not before `delay_s`, after `interval_s` in any case."""

    delay_s: float
    interval_s: float


class _Wait(NamedTuple):
    """What a suspect waits for: that the sink takes more than so many bulks, within limits of time."""

    taken: int
    earliest: float
    latest: float
    last_error: str


class Suspects:
    """Delivers suspects."""

    def __init__(
        self,
        store: GroupStore,
        journal: Journal,
        delivery: Delivery,
        findings: Findings,
        pace: Pace,
    ) -> None:
        self._store = store
        self._journal = journal
        self._delivery = delivery
        self._findings = findings
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._first = _Wait(0, self._loop.time(), self._loop.time() + pace.interval_s, "")
        self._waits: dict[int, _Wait] = {}
        self._added = asyncio.Event()

    def __contains__(self, row_id: object) -> bool:
        """Return whether a group is in memory, or waits as a suspect."""
        return row_id in self._journal.ledger.held or row_id in self._waits

    def __iter__(self) -> Iterator[int]:
        return iter(self._journal.ledger.held.keys() | self._waits.keys())

    def __len__(self) -> int:
        return len(self._journal.ledger.held.keys() | self._waits.keys())

    def keep(self, stored: StoredGroup) -> bool:
        """Take a group over if it is suspect; return whether it is."""
        if next_step(stored.history, len(stored.entries)) is Step.TOGETHER:
            return False
        if stored.id not in self._waits:
            log.info("group_suspect", group=stored.id, events=len(stored.entries), strikes=stored.history.strikes)
            self._add(stored.id, self._first)
        return True

    async def run(self) -> None:
        """Deliver suspects for ever."""
        while True:
            row_id = await self._wait_next()
            wait = None
            try:
                await self._journal.wait_settling()
                wait = await self._take_step(row_id)
            except SpoolUnavailable as error:
                # The next pass of redelivery finds it again.
                log.warning("spool_unavailable", cause=str(error))
            # At the end, so that others have their turn before it.
            del self._waits[row_id]
            if wait is not None:
                self._add(row_id, wait)

    def _add(self, row_id: int, wait: _Wait) -> None:
        self._waits[row_id] = wait
        self._added.set()

    async def _wait_next(self) -> int:
        """Wait until a suspect may go."""
        while True:
            now, taken = self._loop.time(), self._findings.evidence.doubts.taken
            is_good = self._findings.gate.health is Health.GOOD
            for row_id, wait in self._waits.items():
                if now >= wait.latest or (is_good and now >= wait.earliest and taken > wait.taken):
                    return row_id
            if self._waits:
                await asyncio.sleep(POLL_S)
            else:
                self._added.clear()
                await self._added.wait()

    async def _take_step(self, row_id: int) -> _Wait | None:
        """Do what there is to do with a suspect; return what it then waits for, if it is still there."""
        stored = await load_group(self._store, row_id, self._journal.ledger.held)
        if stored is None or stored.index_name in self._findings.holds:
            return None
        step = next_step(stored.history, len(stored.entries))
        if step is Step.HALVE:
            await self._halve(stored)
        elif step is Step.BURY:
            await self._bury(stored, self._waits[row_id].last_error)
        return await self._deliver(stored) if step is Step.ALONE else None

    async def _halve(self, stored: StoredGroup) -> None:
        settlement = halve_group(self._journal.take_up(stored), self._journal.new_id)
        halves = [row.id for row in settlement.transaction.inserts]
        log.info("suspect_halved", group=stored.id, events=len(stored.entries), halves=halves)
        self._journal.settle(settlement)
        await self._journal.wait_released([stored.id])
        for row_id in halves:
            self._findings.evidence.doubts.mark(row_id)
            self._add(row_id, self._first)

    async def _bury(self, stored: StoredGroup, last_error: str) -> None:
        reason = f"{STRIKES_MAX} deliveries ended without an answer while others were taken: {last_error or UNKNOWN}"
        log.error("event_is_poison", group=stored.id, reason=reason, consequence="it is kept as a dead letter")
        self._journal.settle(bury(self._journal.take_up(stored), reason, now_ms()))
        await self._journal.wait_released([stored.id])

    async def _deliver(self, stored: StoredGroup) -> _Wait | None:
        group = self._journal.take_up(stored)
        taken = self._findings.evidence.doubts.taken
        outcomes = await self._delivery.deliver_alone([group])
        await self._journal.wait_released([stored.id])
        # An answer about single events is no failure of this kind: the next pass finds what is left.
        failed = next(filter(blocks, outcomes), None)
        if failed is None:
            return None
        now = self._loop.time()
        error = f"{failed.error_type}: {failed.reason}"
        if len(stored.entries) == 1:
            taken += OTHERS_MIN - 1  # sooner, nothing would be learnt from one more failure
        return _Wait(taken, now + self._pace.delay_s, now + self._pace.interval_s, error)
