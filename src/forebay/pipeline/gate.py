"""The gate: how many bulks may be under way, and when to try again after the sink failed.

While all goes well, up to `workers` bulks are in flight. After a failure nothing goes until a back-off is over, then
one bulk goes as a probe: if it fails the back-off doubles up to its cap, if it succeeds the gate is open again. The
back-off has jitter (a half to the whole of it), so that many Forebays do not come back to one OpenSearch together
(AWS Architecture Blog, "Exponential Backoff And Jitter", 2015: "equal jitter").
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Callable, Sequence

from forebay.model import Outcome, Verdict


class Health(enum.Enum):
    """What a bulk says of the sink."""

    GOOD = "good"  # it took or refused at least one event for good
    FAILED = "failed"  # it settled nothing; it may soon
    PAUSED = "paused"  # it settled nothing and will not until an operator acts


def judge(outcomes: Sequence[Outcome]) -> Health:
    """Say what the outcomes of a bulk mean for the next ones.

    One event that was taken shows that the sink works: the others wait for redelivery and hold up nobody.
    """
    if any(outcome.settled for outcome in outcomes):
        return Health.GOOD
    return Health.PAUSED if any(outcome.verdict is Verdict.PAUSE for outcome in outcomes) else Health.FAILED


class Gate:
    """Belongs to the event loop.

    Attributes:
        health: what the last telling bulk said of the sink.
        cause: why, while the health is not good.
    """

    def __init__(
        self,
        workers: int,
        delay_s_min: float,
        delay_s_max: float,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._workers = workers
        self._delay_s_min = delay_s_min
        self._delay_s_max = delay_s_max
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._inside = 0
        self._failures = 0
        self._epoch = 0
        self._resting = False
        self.health = Health.GOOD
        self.cause = ""
        self.on_reopened: Callable[[], None] = lambda: None

    async def enter(self) -> int:
        """Wait until a bulk may go; return the ticket to hand in with `leave`."""
        while not self._admits():
            self._changed.clear()
            await self._changed.wait()
        self._inside += 1
        return self._epoch

    def leave(self, ticket: int, health: Health, cause: str = "") -> None:
        """Hand in what a bulk found out. What was sent before the last failure says nothing about now."""
        self._inside -= 1
        if ticket == self._epoch:
            if health is Health.GOOD:
                self._open()
            else:
                self._back_off(health, cause)
        self._changed.set()

    def _admits(self) -> bool:
        in_flight_max = 1 if self._failures else self._workers
        return self._inside < in_flight_max and not self._resting

    def _open(self) -> None:
        was_closed, self._failures = self._failures > 0, 0
        self.health, self.cause = Health.GOOD, ""
        if was_closed:
            self.on_reopened()

    def _back_off(self, health: Health, cause: str) -> None:
        self.health, self.cause = health, cause
        self._failures += 1
        self._epoch += 1
        delay_s = self._delay_s_max
        if health is Health.FAILED:
            # The exponent is bounded so that a week of failures does not make a number too large for a float.
            delay_s = min(delay_s, self._delay_s_min * 2 ** min(self._failures - 1, 32))
        self._resting = True
        self._loop.call_later(self._jitter(delay_s / 2, delay_s), self._end_rest)

    def _end_rest(self) -> None:
        # The timer alone ends the back-off. By the loop's clock it may have fired early (uvloop's counts whole
        # milliseconds), and nobody would ask again.
        self._resting = False
        self._changed.set()
