"""The number of bulks that may be in flight, found out from how the sink answers. Pure.

It is found by additive increase and multiplicative decrease (Chiu and Jain, "Analysis of the Increase and
Decrease Algorithms for Congestion Avoidance in Computer Networks", 1989), in the form of TCP (RFC 5681):

- Slow start: one more with each good bulk, until the sink shows for the first time that it is too much.
- A refusal because the sink has too much to do halves the limit, at most once a round of bulks. From then on it grows
  by one in several rounds: each try for more costs a bulk that is refused and has to be sent again.
- It grows only while it is in use: a limit that nobody reaches says nothing about how much the sink takes (RFC 7661).

Time is a sign too, and a weaker one: the time of the newest bulks is compared with the usual time, as Netflix's
concurrency-limits does (`Gradient2Limit`). Bulks differ, and more of them at once take a little longer each while
together they are faster; so only twice as long counts, it lowers by a fifth, and never below the number that OpenSearch
is known to take well, 2 to 4 at once. Then it grows by one a round; a slow time that stays becomes the usual one.
"""

from __future__ import annotations

START = 4
"""Bulks in flight at first, and after the sink was away."""

REFUSED_FACTOR = 0.5
REFUSED_ROUNDS = 8
SLOW_FACTOR = 0.8
SLOW_ROUNDS = 1
SLOW_RATIO = 2.0
SLOW_S_MIN = 0.1
"""A bulk that takes less is never slow: at a few milliseconds noise alone doubles the time."""

RECENT_WEIGHT = 0.3
USUAL_WEIGHT = 0.02
USUAL_DECAY = 0.95
"""How the usual time comes down after a slow one, with each bulk that takes less than half as long."""


class InFlightLimit:
    """The number of bulks that may be in flight, between 1 and a maximum."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._start = min(START, most)
        self._limit = float(self._start)
        self._rounds_a_step = 0
        self._bulks = 0
        self._recent_s = 0.0
        self._usual_s = 0.0
        self._bulks_to_wait = 0

    @property
    def value(self) -> int:
        """How many bulks may be in flight."""
        return int(self._limit)

    def restart(self) -> None:
        """Begin again small: the sink was away, and may have come back as another one."""
        self._limit = min(self._limit, float(self._start))
        self._rounds_a_step = 0

    def lower(self) -> None:
        """Take note that the sink refused for having too much to do."""
        self._limit = max(1.0, self._limit * REFUSED_FACTOR)
        self._rounds_a_step = REFUSED_ROUNDS

    def learn(self, in_flight: int, seconds: float) -> None:
        """Take note of a good bulk; the limit may rise, or fall because bulks take longer.

        Args:
            in_flight: how many bulks were in flight when it was sent, itself included.
            seconds: the time it took.
        """
        if 2 * in_flight < self._limit:
            return
        self._measure(seconds)
        self._bulks_to_wait -= 1
        if self._is_slow() and self._bulks_to_wait <= 0 and self.value > self._start:
            self._limit = max(float(self._start), self._limit * SLOW_FACTOR)
            self._rounds_a_step = max(SLOW_ROUNDS, self._rounds_a_step)
            # The bulks that are under way were sent before this had any effect.
            self._bulks_to_wait = self._most
        elif not self._is_slow():
            bulks_a_step = max(1.0, self._limit * self._rounds_a_step)
            self._limit = min(float(self._most), self._limit + 1.0 / bulks_a_step)

    def _measure(self, seconds: float) -> None:
        self._bulks += 1
        first = 1.0 / self._bulks  # a plain mean of the first ones
        self._recent_s += (seconds - self._recent_s) * max(RECENT_WEIGHT, first)
        self._usual_s += (seconds - self._usual_s) * max(USUAL_WEIGHT, first)
        if self._usual_s > SLOW_RATIO * self._recent_s:
            self._usual_s *= USUAL_DECAY

    def _is_slow(self) -> bool:
        return self._recent_s > max(SLOW_S_MIN, SLOW_RATIO * self._usual_s)
