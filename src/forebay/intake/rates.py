"""How much a sender may send: limits of events a second and a day, by token, by device and by address.

The rate is held by the generic cell rate algorithm (ITU-T I.371): each event puts off the time at which its sender is
out of debt, and a request is taken if there is room for one event. So a request is never taken in part: its events are
counted whole, and the next one waits until the debt is gone. Refused events count nothing, and those that could not be
kept (503) are given back. A quota counts the events of a day (UTC) in the same way.

Nobody is refused below his limit. Above it, in any time, no more passes than the events of that time, those of the
burst, and the rest of one request. The accounts are in the memory of one process, and new after a start: with several
workers nobody is refused below his limit either, and at most as many times the limit passes as there are workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from http import HTTPStatus
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from forebay.errors import Rejection
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

NS = 1_000_000_000
LONG_AGO_NS = -(2**62)
NEVER = -1

TOKEN = "token"  # noqa: S105 - a name to clients, no secret


Key: TypeAlias = str | bytes


class Limit(Struct, frozen=True, gc=False):
    """The most that one sender may send.

    Times are whole nanoseconds, so that sums of them are exact however long the process runs. That of an event is
    rounded down, in favour of the sender: by less than 0.1 % at a million events a second.

    Attributes:
        name: its name to clients.
        per_s: events a second; None for any number.
        per_day: events a day; None for any number.
        event_ns: the time between two events at that rate.
        burst_ns: the time whose events may come at once.
    """

    name: str
    per_s: float | None
    per_day: int | None
    event_ns: int
    burst_ns: int


def make_limit(name: str, per_s: float | None, per_day: int | None, burst_s: float) -> Limit:
    """Return a limit of a rate, of a number a day, of both or of none."""
    if per_s is None:
        return Limit(name, None, per_day, 0, 0)
    per_s = max(PER_S_MIN, per_s)
    return Limit(name, per_s, per_day, int(NS / per_s), int(NS * burst_s))


class Account(Struct, gc=False):
    """The events of one sender.

    Attributes:
        limit: the most that it may send.
        event_ns: the time between two events at its rate.
        slack_ns: the time whose events may come at once, without that of the first one.
        has_quota: whether its events of a day are limited.
        in_debt_until: the time until which it is refused.
        day: the day of its newest event, in days since 1970; kept only under a quota, like the next two.
        events_of_day: its events on that day.
        spent_on: the newest day on which they reached the quota.
    """

    limit: Limit
    event_ns: int
    slack_ns: int
    has_quota: bool
    in_debt_until: int = LONG_AGO_NS
    day: int = 0
    events_of_day: int = 0
    spent_on: int = NEVER

    def count_of_day(self, events: int, day: int) -> None:
        """Count events of a day under the quota."""
        if self.day != day:
            self.day, self.events_of_day = day, 0
        self.events_of_day += events
        if self.limit.per_day is not None and self.events_of_day >= self.limit.per_day:
            self.spent_on = day

    def give_back(self, events: int) -> None:
        """Take back events that were counted and could not be kept: their client is to send them again."""
        self.in_debt_until -= events * self.event_ns
        self.events_of_day = max(0, self.events_of_day - events)
        if self.limit.per_day is not None and self.events_of_day < self.limit.per_day:
            self.spent_on = NEVER


class Accounts(dict[Key, Account]):
    """The accounts of one kind of sender by their key, in two generations; one that is missing is made.

    This is the newer generation. If it is full it becomes the older one, and the accounts that were older are
    forgotten. One that is looked up is in the newer generation. So however many keys come, none is forgotten that is
    looked up at least once while `KEYS_MAX` others are; and a forgotten one begins anew, which refuses nobody.
    """

    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self._limit = limit
        self._older: dict[Key, Account] = {}

    def __missing__(self, key: Key) -> Account:
        account = self._older.pop(key, None) or _open_account(self._choose_limit(key))
        if len(self) >= KEYS_MAX:
            self._older = dict(self)
            self.clear()
        self[key] = account
        return account

    def _choose_limit(self, key: Key) -> Limit:
        del key
        return self._limit


class OwnRateAccounts(Accounts):
    """The accounts of tokens with a rate of their own, which is the beginning of their key."""

    def __init__(self, limit: Limit, burst_s: float) -> None:
        super().__init__(limit)
        self._burst_s = burst_s

    def _choose_limit(self, key: Key) -> Limit:
        per_s = float(str(key).partition(" ")[0])
        return make_limit(self._limit.name, per_s, self._limit.per_day, self._burst_s)


LimitedAs: TypeAlias = tuple[tuple[Accounts, Key], ...]
"""The names under which the events of a sender are counted, and the accounts in which each is looked up."""


class RateLimiter:
    """Limits the events of each token, device and address; a kind without a rate and a quota is not limited.

    A rate of a token's own stands in place of the rate of all tokens, and so has an account of its own. Times are those
    of `time.monotonic_ns`; `clock` tells the day.
    """

    def __init__(self, settings: Settings, clock: Callable[[], int] = time.time_ns) -> None:
        burst_s = settings.rate_burst_s
        token = make_limit(TOKEN, settings.token_rate_per_s, settings.token_quota_per_day, burst_s)
        device = make_limit("device", settings.device_rate_per_s, settings.device_quota_per_day, burst_s)
        address = make_limit("address", settings.address_rate_per_s, settings.address_quota_per_day, burst_s)
        self._tokens = _make_accounts(token)
        self._tokens_with_rate = OwnRateAccounts(token, burst_s)
        self._devices = _make_accounts(device)
        self._addresses = _make_accounts(address)
        self._clock = clock
        self._day = 0
        self._day_ends_at = LONG_AGO_NS
        self._ask_clock_at = LONG_AGO_NS

    def identify(self, sub: str, own_per_s: float | None, device: bytes | None, address: str | None) -> LimitedAs:
        """Return the names under which a sender is limited, whose token may have a rate of its own; none if nothing is.

        They may be kept: accounts are looked up each time.
        """
        found: list[tuple[Accounts, Key]] = []
        if own_per_s is not None:
            found.append((self._tokens_with_rate, f"{own_per_s!r} {_shorten(sub)!r}"))
        elif self._tokens is not None:
            found.append((self._tokens, _shorten(sub)))
        if device is not None and self._devices is not None:
            found.append((self._devices, _shorten(device)))
        if address is not None and self._addresses is not None:
            found.append((self._addresses, address))
        return tuple(found)

    def check(self, now: int, limited_as: LimitedAs) -> list[Account]:
        """Return the accounts of a sender; nothing is counted.

        Raises:
            Rejection: 429, one of them is over its limit.
        """
        if now >= self._ask_clock_at:
            self._ask_clock(now)
        # On the way of each request, so no call for each account.
        day, found = self._day, []
        for accounts, key in limited_as:
            account = accounts[key]
            if account.in_debt_until > now or account.spent_on == day:
                raise self._refusal([accounts[key] for accounts, key in limited_as], now)
            found.append(account)
        return found

    def count(self, now: int, accounts: Sequence[Account], events: int) -> None:
        """Count the events of a request that are taken, at the time at which `check` has returned these accounts."""
        for account in accounts:
            # Silence saves no more than the burst. `max` takes longer, on the way of every request.
            until, least = account.in_debt_until, now - account.slack_ns
            account.in_debt_until = (until if until > least else least) + events * account.event_ns  # noqa: FURB136
            if account.has_quota:
                account.count_of_day(events, self._day)

    def _ask_clock(self, now: int) -> None:
        self._day, since_midnight = divmod(self._clock(), DAY_S * NS)
        self._day_ends_at = now + DAY_S * NS - since_midnight
        self._ask_clock_at = min(self._day_ends_at, now + CLOCK_INTERVAL_S * NS)

    def _refusal(self, accounts: Iterable[Account], now: int) -> Rejection:
        over: list[_Excess] = []
        for account in accounts:
            limit = account.limit
            if limit.per_s is not None and account.in_debt_until > now:
                over.append(_excess_of_rate(limit, limit.per_s, account.in_debt_until - now))
            if limit.per_day is not None and account.spent_on == self._day:
                over.append(_excess_of_day(limit, limit.per_day, self._day_ends_at - now))
        longest = max(over, key=lambda excess: excess.wait_s)
        headers = (
            ("Retry-After", str(longest.wait_s)),
            ("RateLimit-Policy", ", ".join(f'"{name}";q={quota};w={window}' for name, quota, window, _, _ in over)),
            ("RateLimit", ", ".join(f'"{name}";r=0;t={wait}' for name, _, _, wait, _ in over)),
        )
        return Rejection(HTTPStatus.TOO_MANY_REQUESTS, longest.detail, headers=headers)


class _Excess(NamedTuple):
    """A limit that a sender is over, in the words of draft-ietf-httpapi-ratelimit-headers-11; the unit is an event."""

    name: str
    quota: int
    window_s: int
    wait_s: int
    detail: str


def _excess_of_rate(limit: Limit, per_s: float, wait_ns: int) -> _Excess:
    # Both numbers are whole, and neither is 0.
    window_s = math.ceil(max(limit.burst_ns / NS, 1 / per_s, 1))
    detail = f"this {limit.name} may send {per_s:g} events a second"
    return _Excess(limit.name, max(int(per_s * window_s), 1), window_s, math.ceil(wait_ns / NS), detail)


def _excess_of_day(limit: Limit, per_day: int, wait_ns: int) -> _Excess:
    detail = f"this {limit.name} may send {per_day} events a day"
    return _Excess(f"{limit.name}-day", per_day, DAY_S, math.ceil(wait_ns / NS), detail)


def _open_account(limit: Limit) -> Account:
    slack_ns = max(0, limit.burst_ns - limit.event_ns)
    return Account(limit, limit.event_ns, slack_ns, limit.per_day is not None)


def _make_accounts(limit: Limit) -> Accounts | None:
    return None if limit.per_s is None and limit.per_day is None else Accounts(limit)


def _shorten(key: Key) -> Key:
    """Return a key, or its digest if it is long."""
    if len(key) <= KEY_SIZE_MAX:
        return key
    return blake2b(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key, digest_size=32).digest()
