"""The gate: how many bulks may be in flight, and when to try again after the sink failed.

While all goes well, as many bulks are in flight as the sink is found to take (`in_flight_limit.py`). A sink that has
too much to do (429) gets half as many; one that refuses even a single bulk, or fails, gets nothing until a back-off is
over. Then one event goes as a probe: if it fails the back-off doubles, if it succeeds the gate is open again.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

from forebay.backoff import Backoff
from forebay.in_flight_limit import InFlightLimit
from forebay.model import Outcome, Verdict, are_delivered
from forebay.pipeline.wake import Wake


class Health(enum.Enum):
    """How the sink is, as one bulk shows."""

    GOOD = "good"  # it has an answer for each event, and may take others
    FAILED = "failed"  # it settled nothing; it may soon
    PAUSED = "paused"  # it takes nothing until an operator acts


class Report(NamedTuple):
    """How the sink is, as the outcomes of one bulk show.

    Attributes:
        is_busy: some of the bulk was refused because the sink has too much to do.
        failed: the first outcome of an event that is to be tried again, if there is one.
    """

    health: Health
    is_busy: bool = False
    failed: Outcome | None = None

    @property
    def cause(self) -> str:
        """Why the sink is not well, for people."""
        return f"{self.failed.error_type}: {self.failed.reason}" if self.failed else ""


WELL = Report(Health.GOOD)


def judge(outcomes: Sequence[Outcome]) -> Report | None:
    """Return how the sink is, as the outcomes of a bulk show; None if they show nothing about it.

    One event that was taken shows that the sink works: the others wait for redelivery and hold up nobody. So does a
    sink that refuses single events: that is a matter of these events, or of their index (`holds.py`).
    """
    if are_delivered(outcomes):
        return WELL
    left = [outcome for outcome in outcomes if not outcome.settled]
    if not left:
        return WELL
    if all(outcome.whole and outcome.is_own for outcome in outcomes):
        return None
    is_busy = any(outcome.is_busy for outcome in left)
    unheard = [outcome for outcome in left if outcome.whole or outcome.verdict is Verdict.RETRY]
    if len(left) < len(outcomes) or not unheard:
        return Report(Health.GOOD, is_busy, left[0])
    paused = next((outcome for outcome in unheard if outcome.verdict is not Verdict.RETRY), None)
    if paused is not None:
        return Report(Health.PAUSED, is_busy, paused)
    return Report(Health.FAILED, is_busy, unheard[0])


class Permit(NamedTuple):
    """The permission of one bulk to go, to be given back when it has ended.

    Attributes:
        generation: counts the changes of the gate; a bulk that was sent in an earlier one says nothing about now.
        in_flight: bulks in flight when it went, itself included.
        is_probe: whether it goes to see if the sink is back.
    """

    generation: int
    in_flight: int
    is_probe: bool


class Gate:
    """Limits bulks in flight; backs off while the sink fails.

    Attributes:
        health: how the last telling bulk found the sink.
        failed: the outcome that tells why, while the health is not good.
    """

    def __init__(
        self,
        in_flight_max: int,
        backoff: Backoff,
        wake: Wake,
        has_events: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Take the most bulks in flight, and a function that returns whether events wait to be sent."""
        self._limit = InFlightLimit(in_flight_max)
        self._backoff = backoff
        self._wake = wake
        self._has_events = has_events
        self._loop = loop
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._failures = 0
        self._generation = 0
        self._is_resting = False
        self._rest_timer: asyncio.TimerHandle | None = None
        self.health = Health.GOOD
        self.failed: Outcome | None = None

    @property
    def in_flight_max(self) -> int:
        """How many bulks may be in flight now."""
        return 1 if self._failures else self._limit.value

    async def enter(self) -> Permit:
        """Wait until a bulk may go; return the permit to give back with `leave` or `leave_unused`."""
        while self._is_resting or self._in_flight >= self.in_flight_max:
            self._changed.clear()
            await self._changed.wait()
        self._in_flight += 1
        self._wake.is_probe_wanted = False
        return Permit(self._generation, self._in_flight, is_probe=self._failures > 0)

    def leave_unused(self) -> None:
        """Take back a permit with which nothing was sent, or nothing that shows how the sink is."""
        self._in_flight -= 1
        self._changed.set()

    def leave(self, permit: Permit, report: Report, seconds: float) -> None:
        """Take back a permit with the report of its bulk, and the seconds that the bulk took."""
        self._in_flight -= 1
        if permit.generation == self._generation:
            self._learn(permit, report, seconds)
        self._changed.set()

    def reopen(self) -> None:
        """Take note that the sink is well: it has taken something that went past the gate."""
        if self._failures:
            self._generation += 1
            if self._rest_timer is not None:
                self._rest_timer.cancel()
            self._is_resting = False
            self._open()
            self._changed.set()

    def _learn(self, permit: Permit, report: Report, seconds: float) -> None:
        before = self._limit.value
        if report.is_busy:
            self._limit.lower()
        is_lowered = self._limit.value < before
        if report.health is Health.GOOD:
            self._open()
            if not report.is_busy and not permit.is_probe:
                self._limit.learn(permit.in_flight, seconds)
                is_lowered = self._limit.value < before
        elif not is_lowered or self._failures:
            self._back_off(report)
        if is_lowered:
            self._generation += 1

    def _open(self) -> None:
        was_closed, self._failures = self._failures > 0, 0
        self.health, self.failed = Health.GOOD, None
        self._wake.is_sink_well = True
        if was_closed:
            self._wake.pass_now()

    def _back_off(self, report: Report) -> None:
        self.health, self.failed = report.health, report.failed
        self._wake.is_sink_well = False
        self._failures += 1
        self._generation += 1
        if not report.is_busy:
            self._limit.restart()
        self._is_resting = True
        self._rest_timer = self._loop.call_later(self._backoff.delay_s(self._failures), self._end_rest)

    def _end_rest(self) -> None:
        # The timer alone ends the back-off. By the loop's clock it may have fired early (uvloop's counts whole
        # milliseconds), and nobody would ask again.
        self._is_resting = False
        self._changed.set()
        # Without new events nothing would find out if the sink is back.
        if not self._has_events():
            self._wake.seek_probe()
