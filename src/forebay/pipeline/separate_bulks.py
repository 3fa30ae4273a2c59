"""Bulks beside the channel and past the gate: suspects, one after the other, and trials of indices on hold.

*Suspects* are groups with strikes enough to be poison (`evidence.py`). One that takes all the time there is holds up
no other event here, and innocent groups arrive so. One that fails alone is halved, down to one event. In each process
the first waits until the sink has taken something, and one that failed until it has taken something since; if nothing
else is taken, for a whole interval of redelivery.

A *trial* finds out if the sink takes events of an index on hold (`holds.py`) again. It has as many events as a bulk.
Those that were never refused come first, the newest and the oldest: one of them that is taken says that the index is
well, and that those which are refused beside it are at fault themselves. If there is room left, events follow that were
refused before, others each time.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

import structlog

from forebay.clock import now_ms
from forebay.errors import SpoolUnavailable
from forebay.history import History
from forebay.model import Outcome
from forebay.pipeline.evidence import FAILURES_MAX, OTHERS_MIN, Evidence
from forebay.pipeline.gate import Gate, Health
from forebay.pipeline.group import Group
from forebay.pipeline.holds import Hold, Holds
from forebay.pipeline.journal import Journal
from forebay.pipeline.ledger import ONE_GROUP, Ledger
from forebay.pipeline.settlement import bury, halve
from forebay.spool.records import StoredGroup

log = structlog.get_logger("forebay.separate_bulks")

POLL_S = 0.1
"""How often to look whether the next suspect may go, while there are any."""

UNKNOWN = "in an earlier run"

Deliver: TypeAlias = Callable[[Sequence[Group]], Awaitable[Sequence[Outcome]]]
"""Delivers groups in a bulk of their own."""


class Step(enum.Enum):
    """The next step with a group."""

    WITH_OTHERS = "with others"  # deliver it through the channel
    ALONE = "alone"  # deliver it in a bulk of its own
    HALVE = "halve"  # make two groups of it
    BURY = "bury"  # it is one event, and a dead letter


def next_step(history: History, events: int) -> Step:
    """Return the next step with a group of so many events."""
    if history.strikes < FAILURES_MAX:
        return Step.WITH_OTHERS
    if events > 1:
        return Step.HALVE if history.strikes > FAILURES_MAX else Step.ALONE
    return Step.BURY if history.strikes >= 2 * FAILURES_MAX else Step.ALONE


class _Wait(NamedTuple):
    """The condition for a suspect to go: the sink has taken more than so many bulks, within limits of time."""

    taken: int
    earliest: float
    latest: float
    last_error: str


class Suspects:
    """Delivers suspects."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        deliver: Deliver,
        gate: Gate,
        holds: Holds,
        evidence: Evidence,
        delay_s: float,
        interval_s: float,
    ) -> None:
        """Take the parts; a suspect goes again after `delay_s` at the earliest, after `interval_s` in any case."""
        self._ledger = ledger
        self._journal = journal
        self._deliver_alone = deliver
        self._gate = gate
        self._holds = holds
        self._failures = evidence.failures
        self._delay_s = delay_s
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._first = _Wait(0, self._loop.time(), self._loop.time() + interval_s, "")
        self._waits: dict[int, _Wait] = {}
        self._added = asyncio.Event()

    def set_apart(self, stored: StoredGroup) -> bool:
        """Take a group over if it is suspect; return whether it is."""
        if next_step(stored.history, len(stored.entries)) is Step.WITH_OTHERS:
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
                log.warning("spool_unavailable", work="suspect", cause=str(error), consequence="tried again later")
            # At the end, so that others have their turn before it.
            del self._waits[row_id]
            self._ledger.set_apart.discard(row_id)
            if wait is not None:
                self._add(row_id, wait)

    def _add(self, row_id: int, wait: _Wait) -> None:
        self._waits[row_id] = wait
        self._ledger.set_apart.add(row_id)
        self._added.set()

    async def _wait_next(self) -> int:
        """Wait until a suspect may go."""
        while True:
            now, taken = self._loop.time(), self._failures.taken
            is_good = self._gate.health is Health.GOOD
            for row_id, wait in self._waits.items():
                if now >= wait.latest or (is_good and now >= wait.earliest and taken > wait.taken):
                    return row_id
            if self._waits:
                await asyncio.sleep(POLL_S)
            else:
                self._added.clear()
                await self._added.wait()

    async def _take_step(self, row_id: int) -> _Wait | None:
        """Take the next step with a suspect; return the condition for the step after, if the group is still there."""
        stored = await self._ledger.load_row(row_id)
        if stored is None or stored.index_name in self._holds:
            return None
        step = next_step(stored.history, len(stored.entries))
        if step is Step.HALVE:
            await self._halve(stored)
        elif step is Step.BURY:
            await self._bury(stored, self._waits[row_id].last_error)
        return await self._deliver(stored) if step is Step.ALONE else None

    async def _halve(self, stored: StoredGroup) -> None:
        settlement = halve(self._ledger.take_up(stored), self._journal.new_id)
        halves = [row.id for row in settlement.transaction.inserts]
        log.info("suspect_halved", group=stored.id, events=len(stored.entries), halves=halves)
        self._journal.settle(settlement)
        await self._ledger.wait_released([stored.id])
        for row_id in halves:
            self._failures.note_failure(row_id)
            self._add(row_id, self._first)

    async def _bury(self, stored: StoredGroup, last_error: str) -> None:
        reason = f"{FAILURES_MAX} deliveries ended without an answer while others were taken: {last_error or UNKNOWN}"
        log.error("event_is_poison", group=stored.id, reason=reason, consequence="it is kept as a dead letter")
        self._journal.settle(bury(self._ledger.take_up(stored), reason, now_ms()))
        await self._ledger.wait_released([stored.id])

    async def _deliver(self, stored: StoredGroup) -> _Wait | None:
        group = self._ledger.take_up(stored)
        taken = self._failures.taken
        outcomes = await self._deliver_alone([group])
        await self._ledger.wait_released([stored.id])
        # An answer about single events is no failure of this kind: the next pass finds the events that are left.
        failed = next((outcome for outcome in outcomes if outcome.is_blocking), None)
        if failed is None:
            return None
        now = self._loop.time()
        error = f"{failed.error_type}: {failed.reason}"
        if len(stored.entries) == 1:
            taken += OTHERS_MIN - 1  # sooner, nothing would be learnt from one more failure
        return _Wait(taken, now + self._delay_s, now + self._interval_s, error)


class Trials:
    """Delivers trials."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        deliver: Deliver,
        gate: Gate,
        holds: Holds,
        set_apart: Callable[[StoredGroup], bool],
    ) -> None:
        """Take the parts; `set_apart` takes a group over if it is suspect, and returns whether it did."""
        self._ledger = ledger
        self._journal = journal
        self._deliver_alone = deliver
        self._gate = gate
        self._holds = holds
        self._set_apart = set_apart

    async def run(self) -> None:
        """Try indices on hold for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._try(await self._holds.wait_due()))

    async def _try(self, hold: Hold) -> None:
        try:
            await self._deliver(hold)
        except SpoolUnavailable as error:
            log.warning("spool_unavailable", work="trial", cause=str(error), consequence="tried again later")
        finally:
            self._holds.end_trial(hold)

    async def _deliver(self, hold: Hold) -> None:
        await self._journal.wait_settling()
        # Also while the sink is not well: if there are no other events nothing else finds out that it is back. But a
        # struggling one is not made to fail with a thousand.
        room = self._journal.limits if self._gate.health is Health.GOOD else ONE_GROUP
        stored = await self._ledger.load_trial(hold.index, hold.after_id, room)
        # The hold may have been lifted while they were read.
        if hold.index not in self._holds:
            return
        # If there are only suspects one of them goes: nothing else would ever find out.
        going = [group for group in stored if not self._set_apart(group)] or stored[:1]
        if not going:
            if not hold.after_id and self._is_gone(hold.index):
                self._holds.lift(hold.index)
            hold.after_id = 0
            return
        hold.after_id = max((group.id for group in going if group.history.refused_status), default=0)
        await self._deliver_alone([self._ledger.take_up(group) for group in going])
        await self._ledger.wait_released([group.id for group in going])

    def _is_gone(self, index: str) -> bool:
        """Return whether no events of an index are in memory: an operator may have buried those in the spool."""
        return all(group.index != index for group in self._ledger.loaded.values())
