"""How much a sender may send: limits of events a second and a day, by token, by device and by address.

The rate is held by the generic cell rate algorithm (ITU-T I.371): each event puts off the time at which its sender is
out of debt, and a request is taken if there is room for one event. So a request is never taken in part: its events are
counted whole, and the next one waits until the debt is gone. Refused events count nothing, and those that could not be
kept (503) are given back. A quota counts the events of a day (UTC) in the same way.

Nobody is refused below his limit. Above it, in any time, no more passes than the events of that time, those of the
burst, and the rest of one request. The accounts are in the memory of one process, and new after a start: with several
workers nobody is refused below his limit either, and at most as many times the limit passes as there are workers.

Times are seconds of `time.monotonic`, as floating-point numbers. Each sum is rounded, by less than 8 ns until the
machine has run for four years. The time of an event is shorter by more than that, so no rounding refuses anybody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeAlias

from msgspec import Struct, structs

from forebay.errors import Rejection
from forebay.intake.excess import Excess, excess_of_day, excess_of_rate, refusal
from forebay.setting_values import DAY_S
from forebay.settings import Settings

KEYS_MAX = 50_000
"""Accounts of one generation. Each kind of sender has two generations at the most."""

KEY_SIZE_MAX = 100
"""Longest key of an account. A longer one is kept as its digest: clients choose the names of their devices."""

PER_S_MIN = 0.001
"""The least rate; a smaller one counts as this one."""

CLOCK_INTERVAL_S = 60
"""How often the clock is asked for the day, beside its end: it may be set."""

ROUNDING_S = 2e-8
"""Taken off the time of each event: 0.2 % more may pass at 100,000 events a second, and less at smaller rates."""

LONG_AGO = -math.inf

TOKEN = "token"  # noqa: S105 - a name to clients, no secret


Key: TypeAlias = str | bytes


class Limit(Struct, frozen=True, gc=False):
    """The most that one sender may send.

    Attributes:
        name: its name to clients.
        per_s: events a second; None for any number.
        per_day: events a day; None for any number.
        burst_s: the time whose events may come at once.
    """

    name: str
    per_s: float | None
    per_day: int | None
    burst_s: float


class Accounts(dict[Key, float]):
    """A number for each sender of one kind, in two generations; one that is missing is new.

    This is the newer generation. If it is full it becomes the older one, and the accounts that were older are
    forgotten. One that is looked up is in the newer generation. So however many keys come, none is forgotten that is
    looked up at least once while `KEYS_MAX` others are; and a forgotten one begins anew, which refuses nobody.
    """

    def __init__(self, new: float) -> None:
        super().__init__()
        self._new = new
        self._older: dict[Key, float] = {}

    def __missing__(self, key: Key) -> float:
        number = self._older.pop(key, self._new)
        if len(self) >= KEYS_MAX:
            self._older = dict(self)
            self.clear()
        self[key] = number
        return number

    def forget(self) -> None:
        """Forget all numbers."""
        self.clear()
        self._older.clear()


RatedAs: TypeAlias = tuple[Accounts, Key, float, float]
"""A sender under a rate: the ends of all debts, the key of his own, the time of an event, and that of the burst behind
the first event."""

CountedAs: TypeAlias = tuple[Accounts, Key, int]
"""A sender under a quota: all numbers of today's events, the key of his own, and the quota."""


class LimitedAs(Struct, frozen=True):
    """The names under which the events of a sender are counted. They may be kept: accounts are looked up each time.

    Attributes:
        rates: those under a rate.
        quotas: those under a quota.
        limits: all limits and the keys of the sender, to name those that he is over.
    """

    rates: tuple[RatedAs, ...]
    quotas: tuple[CountedAs, ...]
    limits: tuple[tuple[Limit, Key], ...]

    def count(self, events: int) -> None:
        """Count more events of a request that was taken, or with a negative number take back some that were counted."""
        for debts, key, event_s, _ in self.rates:
            debts[key] += events * event_s
        for counts, key, _ in self.quotas:
            counts[key] = max(0, counts[key] + events)


class RateLimiter:
    """Limits the events of each token, device and address; a kind without a rate and a quota is not limited.

    A rate of a token's own stands in place of the rate of all tokens, and so has an account of its own. Times are those
    of `time.monotonic`; `clock` tells the day.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        burst_s = settings.rate_burst_s
        self._token = Limit(TOKEN, settings.token_rate_per_s, settings.token_quota_per_day, burst_s)
        self._device = Limit("device", settings.device_rate_per_s, settings.device_quota_per_day, burst_s)
        self._address = Limit("address", settings.address_rate_per_s, settings.address_quota_per_day, burst_s)
        self._is_limiting = any(
            number is not None
            for limit in (self._token, self._device, self._address)
            for number in (limit.per_s, limit.per_day)
        )
        kinds = [limit.name for limit in (self._token, self._device, self._address)]
        self._debts = {kind: Accounts(LONG_AGO) for kind in kinds}
        self._counts = {kind: Accounts(0) for kind in kinds}
        self._clock = clock
        self._day = 0.0
        self._day_ends_at = LONG_AGO
        self._ask_clock_at = LONG_AGO

    def identify(
        self, sub: str, own_per_s: float | None, device: bytes | None, address: str | None
    ) -> LimitedAs | None:
        """Return the names under which a sender is limited, whose token may have a rate of its own; None if by none."""
        if own_per_s is None and not self._is_limiting:
            return None
        token, name = self._token, _shorten(sub)
        if own_per_s is not None:
            token, name = structs.replace(token, per_s=max(PER_S_MIN, own_per_s)), f"{own_per_s!r} {name!r}"
        keys: list[tuple[Limit, Key]] = [(token, name)]
        if device is not None:
            keys.append((self._device, _shorten(device)))
        if address is not None:
            keys.append((self._address, address))
        rates: list[RatedAs] = []
        quotas: list[CountedAs] = []
        for limit, key in keys:
            if limit.per_s is not None:
                event_s = max(0.0, 1 / limit.per_s - ROUNDING_S)
                rates.append((self._debts[limit.name], key, event_s, max(0.0, limit.burst_s - event_s)))
            if limit.per_day is not None:
                quotas.append((self._counts[limit.name], key, limit.per_day))
        if not rates and not quotas:
            return None
        return LimitedAs(tuple(rates), tuple(quotas), tuple(keys))

    def check(self, limited_as: LimitedAs | None) -> None:
        """Check that a sender may send; nothing is counted.

        Raises:
            Rejection: 429, he is over one of his limits.
        """
        if limited_as is not None and (over := self._find_excesses(time.monotonic(), limited_as)):
            raise refusal(over)

    def charge(self, now: float, limited_as: LimitedAs) -> None:
        """Count the first event of a request. This is on the way of each one, so it calls nothing if there is room.

        Raises:
            Rejection: 429, its sender is over one of his limits; nothing is counted.
        """
        for debts, key, event_s, slack_s in limited_as.rates:
            until = debts[key]
            if until > now:
                raise self._refuse(now, limited_as, debts)
            # Silence saves no more than the burst. `max` takes longer.
            least = now - slack_s
            debts[key] = (until if until > least else least) + event_s  # noqa: FURB136
        if limited_as.quotas:
            self._charge_quotas(now, limited_as)

    def _charge_quotas(self, now: float, limited_as: LimitedAs) -> None:
        if now >= self._ask_clock_at:
            self._ask_clock(now)
        for counts, key, per_day in limited_as.quotas:
            if counts[key] >= per_day:
                raise self._refuse(now, limited_as, counts)
            counts[key] += 1

    def _ask_clock(self, now: float) -> None:
        day, since_midnight_s = divmod(self._clock(), DAY_S)
        if day != self._day:
            self._day = day
            for counts in self._counts.values():
                counts.forget()
        self._day_ends_at = now + DAY_S - since_midnight_s
        self._ask_clock_at = min(self._day_ends_at, now + CLOCK_INTERVAL_S)

    def _refuse(self, now: float, limited_as: LimitedAs, over: Accounts) -> Rejection:
        """Take back the first event from each account that counted it, and return the refusal."""
        counted: list[tuple[Accounts, Key, float]] = []
        counted += [(debts, key, event_s + ROUNDING_S) for debts, key, event_s, _ in limited_as.rates]
        counted += [(counts, key, 1) for counts, key, _ in limited_as.quotas]
        for accounts, key, number in counted:
            if accounts is over:
                break
            accounts[key] -= number
        return refusal(self._find_excesses(now, limited_as))

    def _find_excesses(self, now: float, limited_as: LimitedAs) -> list[Excess]:
        if now >= self._ask_clock_at:
            self._ask_clock(now)
        over: list[Excess] = []
        for limit, key in limited_as.limits:
            debts, counts = self._debts[limit.name], self._counts[limit.name]
            if limit.per_s is not None and debts[key] > now:
                over.append(excess_of_rate(limit.name, limit.per_s, limit.burst_s, debts[key] - now))
            if limit.per_day is not None and counts[key] >= limit.per_day:
                over.append(excess_of_day(limit.name, limit.per_day, self._day_ends_at - now))
        return over


def _shorten(key: Key) -> Key:
    """Return a key, or its digest if it is long."""
    if len(key) <= KEY_SIZE_MAX:
        return key
    return blake2b(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key, digest_size=32).digest()
