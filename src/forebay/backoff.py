"""Exponential back-off with jitter: the one rule for the time of the next try. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

Jitter = Callable[[float, float], float]
"""Chooses a number between two others; tests give one that is not random."""


class Backoff(NamedTuple):
    """A delay that doubles with each failure in a row, up to a cap.

    With jitter it is a half to the whole of that, so that many Forebays do not come back to one server at once (AWS
    Architecture Blog, "Exponential Backoff And Jitter", 2015: "equal jitter").
    """

    delay_s_min: float
    delay_s_max: float
    jitter: Jitter = random.uniform

    def delay_s(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row, with jitter."""
        whole_s = self.whole_delay_s(failures)
        return self.jitter(whole_s / 2, whole_s)

    def whole_delay_s(self, failures: int) -> float:
        """Return the same without jitter."""
        # The exponent is bounded so that a week of failures does not make a number too large for a float.
        return min(self.delay_s_max, self.delay_s_min * 2.0 ** min(failures - 1, 32))
