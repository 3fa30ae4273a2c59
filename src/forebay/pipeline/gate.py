"""The gate: how many bulks may be under way, and when to try again after the sink failed.

While all goes well, as many bulks are in flight as the sink is found to take (`concurrency.py`), up to `workers`. A
sink that has too much to do (429) gets half as many; one that refuses even a single bulk, or fails, gets nothing until
a back-off is over. Then one event goes as a probe: if it fails the back-off doubles up to its cap, if it succeeds the
gate is open again.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

from forebay.backoff import Backoff
from forebay.model import BUSY, DELIVERED, Outcome, Verdict
from forebay.pipeline.concurrency import AdaptiveLimit


class Health(enum.Enum):
    """What a bulk says of the sink."""

    GOOD = "good"  # it has an answer for each event, and may take others
    FAILED = "failed"  # it settled nothing; it may soon
    PAUSED = "paused"  # it takes nothing until an operator acts


class Finding(NamedTuple):
    """What a bulk found out about the sink.

    Attributes:
        busy: some of it was refused because the sink has too much to do.
        failed: the first outcome of an event that is to be tried again, if there is one.
    """

    health: Health
    busy: bool = False
    failed: Outcome | None = None

    @property
    def cause(self) -> str:
        """Why the sink is not well, for people."""
        return f"{self.failed.error_type}: {self.failed.reason}" if self.failed else ""


WELL = Finding(Health.GOOD)


def judge(outcomes: Sequence[Outcome]) -> Finding:
    """Say what the outcomes of a bulk mean for the next ones.

    One event that was taken shows that the sink works: the others wait for redelivery and hold up nobody. So does a
    sink that refuses single events: that is a matter of these events, or of their index (`holds.py`).
    """
    if outcomes.count(DELIVERED) == len(outcomes):
        return WELL
    left = [outcome for outcome in outcomes if not outcome.settled]
    if not left:
        return WELL
    busy = any(outcome.error_type in BUSY for outcome in left)
    unheard = [outcome for outcome in left if outcome.whole or outcome.verdict is Verdict.RETRY]
    if len(left) < len(outcomes) or not unheard:
        return Finding(Health.GOOD, busy, left[0])
    paused = next((outcome for outcome in unheard if outcome.verdict is not Verdict.RETRY), None)
    if paused is not None:
        return Finding(Health.PAUSED, busy, paused)
    return Finding(Health.FAILED, busy, unheard[0])


class Ticket(NamedTuple):
    """What a bulk gets on its way in, to be handed in when it has ended.

    Attributes:
        epoch: counts what changed the gate; what was sent in an earlier one says nothing about now.
        in_flight: bulks under way when it went, itself included.
        probe: whether it goes to see if the sink is back.
    """

    epoch: int
    in_flight: int
    probe: bool


class Gate:
    """Belongs to the event loop.

    Attributes:
        health: what the last telling bulk said of the sink.
        failed: the outcome that tells why, while the health is not good.
        on_reopened: called when the sink is back.
        on_rested: called when a back-off is over and a probe may go.
    """

    def __init__(self, workers: int, backoff: Backoff) -> None:
        self._limit = AdaptiveLimit(workers)
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._inside = 0
        self._failures = 0
        self._epoch = 0
        self._resting = False
        self._rest_timer: asyncio.TimerHandle | None = None
        self.health = Health.GOOD
        self.failed: Outcome | None = None
        self.on_reopened: Callable[[], None] = lambda: None
        self.on_rested: Callable[[], None] = lambda: None

    @property
    def in_flight_max(self) -> int:
        """How many bulks may be in flight now."""
        return 1 if self._failures else self._limit.value

    async def enter(self) -> Ticket:
        """Wait until a bulk may go; return the ticket to hand in with `leave`."""
        while self._resting or self._inside >= self.in_flight_max:
            self._changed.clear()
            await self._changed.wait()
        self._inside += 1
        return Ticket(self._epoch, self._inside, probe=self._failures > 0)

    def turn_back(self) -> None:
        """Leave without having sent anything."""
        self._inside -= 1
        self._changed.set()

    def leave(self, ticket: Ticket, finding: Finding, seconds: float) -> None:
        """Hand in what a bulk found out and how long it took."""
        self._inside -= 1
        if ticket.epoch == self._epoch:
            self._learn(ticket, finding, seconds)
        self._changed.set()

    def reopen(self) -> None:
        """Take note that the sink is well: something was taken that went past the gate."""
        if self._failures:
            self._epoch += 1
            if self._rest_timer is not None:
                self._rest_timer.cancel()
            self._resting = False
            self._open()
            self._changed.set()

    def _learn(self, ticket: Ticket, finding: Finding, seconds: float) -> None:
        lowered = finding.busy and self._limit.lower()
        if finding.health is Health.GOOD:
            self._open()
            if not finding.busy and not ticket.probe:
                lowered = self._limit.learn(ticket.in_flight, seconds)
        elif not lowered or self._failures:
            self._back_off(finding)
        if lowered:
            self._epoch += 1

    def _open(self) -> None:
        was_closed, self._failures = self._failures > 0, 0
        self.health, self.failed = Health.GOOD, None
        if was_closed:
            self.on_reopened()

    def _back_off(self, finding: Finding) -> None:
        self.health, self.failed = finding.health, finding.failed
        self._failures += 1
        self._epoch += 1
        if not finding.busy:
            self._limit.restart()
        self._resting = True
        self._rest_timer = self._loop.call_later(self._backoff.delay_s(self._failures), self._end_rest)

    def _end_rest(self) -> None:
        # The timer alone ends the back-off. By the loop's clock it may have fired early (uvloop's counts whole
        # milliseconds), and nobody would ask again.
        self._resting = False
        self._changed.set()
        self.on_rested()
