"""Holds: indices whose events the sink refuses, all of them for all that is known, while it takes those of others.

A write block, a mapping of somebody else's, a broken pipeline: such a refusal is about one index. A bulk that refuses
events of an index, and takes none of them, puts it on hold, unless others of the index were taken since: then it is
their own fault (`evidence.py`). A cause that is known to be an index's does so in any case. Events of an index on
hold stay pending, in the spool. Of them one trial bulk at a time goes (`separate_bulks.py`): at once when fresh events
come, a few times, and whenever a back-off is over; it doubles with each trial. The first event that is taken lifts the
hold. All other events flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import structlog

from forebay.backoff import Backoff
from forebay.model import DELIVERED, Entry, Outcome, Verdict
from forebay.pipeline.group import Bulk, Part
from forebay.pipeline.wake import Wake

log = structlog.get_logger("forebay.holds")

FRESH_TRIALS_MAX = 3
"""How many trials of one hold go at once because fresh events have come."""

TELL_EVENTS = 10
TELL_S = 60.0
"""A hold whose cause is not known is told after so many different events, or so long: until then one event alone may be
at fault."""


class HoldState(NamedTuple):
    """A hold as it is seen from outside."""

    index_name: str
    since_ms: int
    error_type: str
    reason: str
    advice: str


class Hold:
    """One index on hold.

    Attributes:
        refused: the newest refusal.
        is_due: whether a trial may go.
        is_on_trial: whether one is in flight.
        after_id: the row behind which the next trial looks for events that were refused before.
        is_told: whether people hear of it.
    """

    def __init__(self, index: str, refused: Outcome, since_ms: int) -> None:
        self.index = index
        self.refused = refused
        self.since_ms = since_ms
        self.failures = 1
        self.fresh_trials = 0
        self.events: set[Entry] = set()
        self.is_due = False
        self.is_on_trial = False
        self.after_id = 0
        self.is_told = False
        self.timer: asyncio.TimerHandle | None = None


class Holds:
    """Knows which indices are on hold, and when a trial of each may go."""

    def __init__(self, backoff: Backoff, wake: Wake, loop: asyncio.AbstractEventLoop) -> None:
        self._backoff = backoff
        self._wake = wake
        self._loop = loop
        self._holds: dict[str, Hold] = {}
        self._due = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._holds)

    def __contains__(self, index: object) -> bool:
        """Return whether an index is on hold."""
        return index in self._holds

    @property
    def indices(self) -> frozenset[str]:
        """The indices on hold."""
        return frozenset(self._holds)

    @property
    def states(self) -> tuple[HoldState, ...]:
        """The holds that people hear of."""
        return tuple(
            HoldState(hold.index, hold.since_ms, hold.refused.error_type, hold.refused.reason, hold.refused.advice)
            for hold in self._holds.values()
            if hold.is_told
        )

    def cover_any(self, parts: Iterable[Part]) -> bool:
        """Return whether any events of a request are of an index on hold."""
        return bool(self._holds) and any(part.index in self._holds for part in parts)

    def learn(self, bulk: Bulk, outcomes: Sequence[Outcome], now_ms: int) -> list[str]:
        """Take note of a bulk; return the indices that are on hold from now on."""
        taken: set[str] = set()
        refused: dict[str, list[tuple[Entry, Outcome]]] = {}
        for group, entries, mine in bulk.pair(outcomes):
            if DELIVERED in mine:
                taken.add(group.index)
            # One that was refused before while others were taken is known to be at fault itself.
            found = [
                (group.original(entry), outcome)
                for entry, outcome in zip(entries, mine, strict=True)
                if _is_about_index(outcome) and (outcome.verdict is Verdict.PAUSE or not group.history.refusals)
            ]
            if found:
                refused.setdefault(group.index, []).extend(found)
        for index in taken - refused.keys():
            self.lift(index)
        before = self.indices
        for index, pairs in refused.items():
            self._note_refused(index, pairs, now_ms, is_taking=index in taken)
        return [index for index in self._holds if index not in before]

    def note_fresh(self, index: str) -> None:
        """Take note that new events of an index on hold have come: they may be taken."""
        hold = self._holds[index]
        if hold.fresh_trials < FRESH_TRIALS_MAX and not hold.is_due:
            hold.fresh_trials += 1
            self._make_due(hold)

    async def wait_due(self) -> Hold:
        """Wait until a trial may go; call `end_trial` behind it."""
        while True:
            for hold in self._holds.values():
                if hold.is_due and not hold.is_on_trial:
                    hold.is_due, hold.is_on_trial = False, True
                    return hold
            self._due.clear()
            await self._due.wait()

    def end_trial(self, hold: Hold) -> None:
        """Set the time for the next trial, whatever became of this one."""
        hold.is_on_trial = False
        if self._holds.get(hold.index) is not hold:
            return
        hold.failures += 1
        self._rest(hold)
        if hold.is_due:
            self._due.set()

    def lift(self, index: str) -> None:
        """Let the events of an index go again."""
        hold = self._holds.pop(index, None)
        if hold is None:
            return
        if hold.timer is not None:
            hold.timer.cancel()
        if hold.is_told:
            log.info("index_released", index=index)
        self._wake.pass_now()

    def _note_refused(
        self, index: str, pairs: Sequence[tuple[Entry, Outcome]], now_ms: int, *, is_taking: bool
    ) -> None:
        known = next((outcome for _, outcome in pairs if outcome.verdict is Verdict.PAUSE), None)
        if is_taking and known is None:
            self.lift(index)
            return
        refused = known or pairs[0][1]
        hold = self._holds.get(index)
        if hold is None:
            hold = self._holds[index] = Hold(index, refused, now_ms)
            self._loop.call_later(TELL_S, self._tell, hold)
            self._rest(hold)
        hold.refused = refused
        if not hold.is_told:
            hold.events.update(entry for entry, _ in pairs)
        if known or len(hold.events) >= TELL_EVENTS:
            self._tell(hold)
        if is_taking:
            # Some shards of it do: the next trial need not wait.
            hold.failures = 0
            self._make_due(hold)

    def _tell(self, hold: Hold) -> None:
        if hold.is_told or self._holds.get(hold.index) is not hold:
            return
        hold.is_told = True
        hold.events.clear()
        log.warning(
            "index_on_hold",
            index=hold.index,
            cause=f"{hold.refused.error_type}: {hold.refused.reason}",
            advice=hold.refused.advice,
            consequence="its events wait in the spool, all others go on",
        )

    def _rest(self, hold: Hold) -> None:
        if hold.timer is not None:
            hold.timer.cancel()
        hold.timer = self._loop.call_later(self._backoff.delay_s(hold.failures), self._make_due, hold)

    def _make_due(self, hold: Hold) -> None:
        hold.is_due = True
        self._due.set()


def _is_about_index(outcome: Outcome) -> bool:
    """Return whether an outcome is about the index, as far as is known: not the event, nor the sink."""
    return not outcome.whole and (
        outcome.verdict is Verdict.PAUSE or (outcome.verdict is Verdict.REFUSED and not outcome.is_own)
    )
