"""Whatever is sent, in any order: nobody is refused below his limit, and nobody passes far above it.

The limiter is compared with a model that keeps every request. In it a sender is in debt if there is a time since which
his events were more than those of that time and of the burst.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from forebay.errors import Rejection
from forebay.intake import rates
from forebay.intake.rates import LONG_AGO, ROUNDING_S, Accounts, RateLimiter
from forebay.setting_values import DAY_S
from forebay.settings import Settings

unhurried = settings(deadline=None, max_examples=300)

NS = 1_000_000_000
DAY_NS = DAY_S * NS
NOON_S = 20_000 * DAY_S + DAY_S // 2
BURST_S = 2_000
ROUNDED_NS = Fraction(15, 2)
"""The most by which a time or a sum of times is rounded while a machine has run for less than four years."""

CLOCK_NS = 500
"""The most by which the time of a clock is rounded."""

EVENT_NS = Fraction(round(ROUNDING_S * NS)) + ROUNDED_NS
"""The most by which the time of an event is shorter than it should be."""


class Step(NamedTuple):
    """A request, and the time since the one before it, in events of the slowest limit and single nanoseconds."""

    gap_events: int
    gap_ns: int
    sub: str
    own_per_s: float | None
    device: bytes | None
    address: str | None
    events: int


class Model:
    """All requests of one sender under one limit."""

    def __init__(self, per_s: float | None, per_day: int | None, burst_s: float) -> None:
        self.per_s = None if per_s is None else Fraction(per_s)
        self.per_day = per_day
        # One event may always come after a long silence.
        self.burst_ns = max(Fraction(burst_s), 1 / Fraction(per_s)) * NS if per_s else Fraction(0)
        self.requests: list[tuple[int, int]] = []

    def is_over(self, now: int, error_ns: Fraction = Fraction(0)) -> bool:
        """Return whether there is no room for one event; with an error, whether there is none by all roundings."""
        if self.per_s is None:
            return False
        event_ns = max(Fraction(0), NS / self.per_s - error_ns)
        events = 0
        for at, count in reversed(self.requests):
            events += count
            # Two times and a sum are rounded beside those of the events.
            if (events + 1) * event_ns > now - at + self.burst_ns + (3 * ROUNDED_NS if error_ns else 0):
                return True
        return False

    def is_spent(self, now: int) -> bool:
        if self.per_day is None:
            return False
        return sum(count for at, count in self.requests if day_of(at) == day_of(now)) >= self.per_day


def day_of(at: int) -> int:
    return (NOON_S * NS + at) // DAY_NS


RATES = st.one_of(st.none(), st.sampled_from([0.001, 1 / 3, 1.0, 7.0, 50.0, 333_333.3, 1e6]), st.floats(0.001, 1e6))
QUOTAS = st.one_of(st.none(), st.integers(1, 50))
STEPS = st.lists(
    st.builds(
        Step,
        gap_events=st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 10_000)),
        gap_ns=st.sampled_from([0, 0, 1, 2, NS, DAY_NS // 2]),
        sub=st.sampled_from(["alice", "bob"]),
        own_per_s=st.sampled_from([None, None, 2.5, 1e5]),
        device=st.sampled_from([None, b"phone", b"x" * 500]),
        address=st.sampled_from([None, "203.0.113.9", "2001:db8::"]),
        events=st.one_of(st.just(1), st.integers(1, 20), st.integers(1, 10_000)),
    ),
    max_size=40,
)


@unhurried
@given(
    numbers=st.tuples(RATES, RATES, RATES, QUOTAS, QUOTAS, QUOTAS),
    burst_s=st.sampled_from([0.001, 0.3, 1.0, 10.0]),
    start=st.sampled_from([0, 1, 200 * DAY_NS, 3 * 365 * DAY_NS]),
    steps=STEPS,
)
def test_who_is_refused_was_over_a_limit_and_who_is_taken_was_not(
    numbers: tuple[Any, ...], burst_s: float, start: int, steps: list[Step]
) -> None:
    names = [
        f"{kind}_{number}" for number in ("rate_per_s", "quota_per_day") for kind in ("token", "device", "address")
    ]
    chosen = Settings(_env_file=None, rate_burst_s=burst_s, **dict(zip(names, numbers, strict=True)))
    now = start
    limiter = RateLimiter(chosen, lambda: NOON_S + now / NS)
    models: dict[Any, Model] = {}
    slowest = min([rate for rate in numbers[:3] if rate is not None], default=1.0)
    for step in steps:
        now += int(step.gap_events * NS / slowest) + step.gap_ns
        mine = [models.setdefault(key, Model(*limit, burst_s)) for key, limit in keys_of(step, numbers)]
        wait_s = take(limiter, now, step)
        if wait_s is None:
            assert not any(model.is_over(now, EVENT_NS) or model.is_spent(now) for model in mine)
            for model in mine:
                model.requests.append((now, step.events))
        else:
            event("refused")
            assert any(model.is_over(now) or model.is_spent(now) for model in mine)
            waited = now + wait_s * NS + CLOCK_NS
            assert not any(model.is_over(waited, EVENT_NS) or model.is_spent(waited) for model in mine)


def take(limiter: RateLimiter, now: int, step: Step) -> int | None:
    """Return the seconds to wait if the request is refused."""
    limited_as = limiter.identify(step.sub, step.own_per_s, step.device, step.address)
    if limited_as is None:
        return None
    try:
        limiter.charge(now / NS, limited_as)
    except Rejection as refusal:
        return int(dict(refusal.headers)["Retry-After"])
    limited_as.count(step.events - 1)
    return None


def keys_of(step: Step, numbers: tuple[Any, ...]) -> list[tuple[Any, tuple[float | None, int | None]]]:
    token, device, address, token_day, device_day, address_day = numbers
    keys: list[tuple[Any, tuple[float | None, int | None]]] = []
    if step.own_per_s is None:
        keys.append(((step.sub, None), (token, token_day)))
    else:
        keys.append(((step.sub, step.own_per_s), (step.own_per_s, token_day)))
    if step.device is not None:
        keys.append((step.device, (device, device_day)))
    if step.address is not None:
        keys.append((("address", step.address), (address, address_day)))
    return keys


@pytest.mark.parametrize("per_s", [0.001, 1 / 3, 3.0, 7.0, 50.0, 12_345.6, 1e6])
def test_no_error_adds_up_over_a_year(per_s: float) -> None:
    limiter = RateLimiter(Settings(_env_file=None, token_rate_per_s=per_s, rate_burst_s=BURST_S))
    limited_as = limiter.identify("alice", None, None, None)
    assert limited_as is not None
    sent, start_s = 0, 2 * 365 * DAY_S
    for day in range(366):
        # Before each of these requests there is room for exactly one event, and the burst is in use.
        events = int(Fraction(per_s) * ((day + 1) * DAY_S + BURST_S)) - 1 - sent
        limiter.charge(start_s + day * DAY_S, limited_as)
        limited_as.count(events - 1)
        sent += events
    with pytest.raises(Rejection) as refused:
        limiter.charge(start_s + 365 * DAY_S, limited_as)
    # No more is forgiven than what is taken off the time of each event.
    forgiven_s = sent * ROUNDING_S
    assert DAY_S - 1 / per_s - forgiven_s - 1 <= int(dict(refused.value.headers)["Retry-After"]) <= DAY_S


@unhurried
@given(keys_max=st.integers(1, 6), keys=st.lists(st.integers(0, 20), max_size=200))
def test_no_account_in_use_is_ever_forgotten(keys_max: int, keys: list[int]) -> None:
    accounts = Accounts(LONG_AGO)
    known: dict[int, float] = {}
    others: dict[int, set[int]] = defaultdict(set)
    with mock.patch.object(rates, "KEYS_MAX", keys_max):
        for now, key in enumerate(keys):
            number = accounts[f"{key}"]
            if key in known and len(others[key]) <= keys_max:
                assert number == known[key]
            known[key] = accounts[f"{key}"] = now
            others[key].clear()
            for other in known.keys() - {key}:
                others[other].add(key)
            assert len(accounts) <= keys_max
            assert len(accounts._older) <= keys_max
