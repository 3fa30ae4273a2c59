"""When to start a fallen worker again: at once, and later and later where it falls again and again. Pure."""

from __future__ import annotations

from forebay.backoff import Backoff

LIFE_S_MIN = 10.0
"""A worker that has lived this long has not fallen because of how it was started."""

BACKOFF = Backoff(delay_s_min=0.5, delay_s_max=30.0)


class Restarts:
    """The falls of one slot's workers."""

    def __init__(self) -> None:
        self._short_lives = 0

    def delay_s(self, lived_s: float) -> float:
        """Return how long to wait before the next start, after a worker has fallen that lived so long."""
        self._short_lives = self._short_lives + 1 if lived_s < LIFE_S_MIN else 0
        if self._short_lives <= 1:
            return 0
        return BACKOFF.whole_delay_s(self._short_lives - 1)
