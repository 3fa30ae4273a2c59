"""The refusal of a sender who is over his limits, in the words of draft-ietf-httpapi-ratelimit-headers-11."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from forebay.errors import Rejection
from forebay.setting_values import DAY_S

REFUSALS_MAX = 100
"""How many refusals are kept: those of a flood are the same for a second."""


class Excess(NamedTuple):
    """A limit that a sender is over; the unit is an event."""

    name: str
    quota: int
    window_s: int
    wait_s: int
    detail: str


def excess_of_rate(name: str, per_s: float, burst_s: float, wait_s: float) -> Excess:
    """Return that a rate is exceeded, and for how long."""
    # Both numbers are whole, and neither is 0.
    window_s = math.ceil(max(burst_s, 1 / per_s, 1))
    detail = f"this {name} may send {per_s:g} events a second"
    return Excess(name, max(int(per_s * window_s), 1), window_s, math.ceil(wait_s), detail)


def excess_of_day(name: str, per_day: int, wait_s: float) -> Excess:
    """Return that a quota is used up, and for how long."""
    return Excess(f"{name}-day", per_day, DAY_S, math.ceil(wait_s), f"this {name} may send {per_day} events a day")


def refusal(over: Sequence[Excess]) -> Rejection:
    """Return the 429 that names all limits which a sender is over, and the longest wait."""
    detail, headers = _describe(tuple(over))
    return Rejection(HTTPStatus.TOO_MANY_REQUESTS, detail, headers=headers)


@lru_cache(maxsize=REFUSALS_MAX)
def _describe(over: tuple[Excess, ...]) -> tuple[str, tuple[tuple[str, str], ...]]:
    longest = max(over, key=lambda excess: excess.wait_s)
    headers = (
        ("Retry-After", str(longest.wait_s)),
        ("RateLimit-Policy", ", ".join(f'"{name}";q={quota};w={window}' for name, quota, window, _, _ in over)),
        ("RateLimit", ", ".join(f'"{name}";r=0;t={wait}' for name, _, _, wait, _ in over)),
    )
    return longest.detail, headers
