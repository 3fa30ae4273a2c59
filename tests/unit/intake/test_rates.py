"""Who sends more than he may is refused until his debt is gone; who does not is never refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from forebay.errors import Rejection
from forebay.intake import rates
from forebay.intake.rates import LONG_AGO, Accounts, LimitedAs, RateLimiter
from forebay.setting_values import DAY_S
from forebay.settings import Settings

DEVICE = b"7b1d2d3a-9a25-4f0c-8a0e-5f0c7d8e9f10"
ADDRESS = "203.0.113.9"
NOON_S = DAY_S * 20_000 + DAY_S / 2


class Sender:
    """Sends to a limiter; its time and that of the clock are set by hand."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 0.0
        self.clock_s = NOON_S
        self.limiter = RateLimiter(Settings(_env_file=None, **settings), lambda: self.clock_s + self.now_s)

    def send(
        self,
        events: int = 1,
        sub: str = "alice",
        own_per_s: float | None = None,
        device: bytes | None = DEVICE,
        address: str | None = ADDRESS,
    ) -> None:
        limited_as = self.limiter.identify(sub, own_per_s, device, address)
        if limited_as is not None:
            self.limiter.charge(self.now_s, limited_as)
            limited_as.count(events - 1)

    def name(self, sub: str = "alice", own_per_s: float | None = None, device: bytes | None = DEVICE) -> LimitedAs:
        limited_as = self.limiter.identify(sub, own_per_s, device, ADDRESS)
        assert limited_as is not None
        return limited_as

    def refusal(self, **sender: Any) -> Rejection:
        with pytest.raises(Rejection) as raised:
            self.send(**sender)
        return raised.value


def fields(refusal: Rejection) -> dict[str, str]:
    return dict(refusal.headers)


def test_the_events_of_a_burst_may_come_at_once_and_then_those_of_the_rate() -> None:
    sender = Sender(token_rate_per_s=5, rate_burst_s=2)
    for _ in range(10):
        sender.send()
    sender.refusal()
    for _ in range(100):
        sender.now_s += 0.2
        sender.send()
        sender.refusal()


def test_a_batch_is_taken_whole_and_the_next_request_waits_for_it() -> None:
    sender = Sender(token_rate_per_s=10, rate_burst_s=1)
    sender.send(events=1_000)
    assert fields(sender.refusal())["Retry-After"] == "100"
    sender.now_s = 99.09
    sender.refusal()
    sender.now_s = 99.1
    sender.send()


def test_events_that_could_not_be_kept_are_given_back() -> None:
    sender = Sender(token_rate_per_s=5, rate_burst_s=2, token_quota_per_day=100)
    for _ in range(50):
        sender.send(100)
        sender.refusal()
        sender.name().count(-100)
    for _ in range(10):
        sender.send()
    sender.refusal()


def test_silence_saves_no_more_than_the_burst() -> None:
    sender = Sender(token_rate_per_s=5, rate_burst_s=2)
    sender.send()
    sender.now_s = 1_000_000
    for _ in range(10):
        sender.send()
    sender.refusal()


def test_a_refused_request_counts_nothing_for_anybody() -> None:
    sender = Sender(token_rate_per_s=1, rate_burst_s=1, address_quota_per_day=4)
    sender.send()
    for _ in range(100):
        assert fields(sender.refusal())["RateLimit"] == '"token";r=0;t=1'
    sender.now_s = 1
    sender.send()
    sender.send(2, sub="bob")
    assert fields(sender.refusal(sub="carol"))["RateLimit"].startswith('"address-day";r=0;')


@pytest.mark.parametrize("over", [{"device_rate_per_s": 1}, {"device_quota_per_day": 1}])
def test_a_limit_with_room_is_not_used_up_by_refusals_for_another(over: dict[str, int]) -> None:
    sender = Sender(token_rate_per_s=5, token_quota_per_day=20, rate_burst_s=2, **over)
    sender.send(2)
    for _ in range(100):
        assert "token" not in fields(sender.refusal())["RateLimit"]
    for number in range(8):
        sender.send(device=b"%d" % number)
    assert fields(sender.refusal(device=b"another"))["RateLimit"].startswith('"token";r=0')
    sender.now_s = 10
    for number in range(10, 20):
        sender.send(device=b"%d" % number)
    assert fields(sender.refusal(device=b"another"))["RateLimit"].endswith('"token-day";r=0;t=43190')


def test_each_kind_of_sender_has_its_own_limit() -> None:
    for kind in ("token", "device", "address"):
        sender = Sender(**{f"{kind}_rate_per_s": 1, "rate_burst_s": 1})
        sender.send()
        assert fields(sender.refusal())["RateLimit"] == f'"{kind}";r=0;t=1'
        assert sender.refusal().detail == f"this {kind} may send 1 events a second"
        others: dict[str, Any] = {"token": {"sub": "bob"}, "device": {"device": b"x"}, "address": {"address": "::1"}}
        sender.send(**others[kind])
        del others[kind]
        for other in others.values():
            sender.refusal(**other)


def test_without_a_device_and_an_address_the_token_is_limited() -> None:
    sender = Sender(token_rate_per_s=1, device_rate_per_s=1, address_rate_per_s=1, rate_burst_s=1)
    sender.send(device=None, address=None)
    assert fields(sender.refusal(device=None, address=None))["RateLimit"] == '"token";r=0;t=1'


def test_a_refusal_names_every_limit_and_the_longest_wait() -> None:
    sender = Sender(
        token_rate_per_s=50,
        device_rate_per_s=0.25,
        address_rate_per_s=1_000_000,
        device_quota_per_day=4,
        rate_burst_s=1,
    )
    sender.send(101)
    refusal = sender.refusal()
    assert refusal.status == 429
    assert refusal.detail == "this device may send 4 events a day"
    assert refusal.headers == (
        ("Retry-After", "43200"),
        ("RateLimit-Policy", '"token";q=50;w=1, "device";q=1;w=4, "device-day";q=4;w=86400'),
        ("RateLimit", '"token";r=0;t=2, "device";r=0;t=404, "device-day";r=0;t=43200'),
    )


@pytest.mark.parametrize(
    ("per_s", "burst_s", "policy"),
    [
        (50, 10, '"token";q=500;w=10'),
        (50, 0.001, '"token";q=50;w=1'),
        (0.5, 10, '"token";q=5;w=10'),
        (0.001, 0.001, '"token";q=1;w=1000'),
        (1 / 3, 1, '"token";q=1;w=3'),
        (1_000_000, DAY_S, '"token";q=86400000000;w=86400'),
    ],
)
def test_a_policy_has_whole_numbers_that_are_not_0(per_s: float, burst_s: float, policy: str) -> None:
    sender = Sender(token_rate_per_s=per_s, rate_burst_s=burst_s)
    sender.send(200_000_000_000)
    assert fields(sender.refusal())["RateLimit-Policy"] == policy


def test_who_waits_as_long_as_he_was_told_is_taken() -> None:
    sender = Sender(token_rate_per_s=7, rate_burst_s=0.3)
    for _ in range(100):
        sender.send(9)
        sender.now_s += int(fields(sender.refusal())["Retry-After"])


# A rate of the token's own


def test_a_rate_of_its_own_replaces_that_of_all_tokens() -> None:
    sender = Sender(token_rate_per_s=1, rate_burst_s=1)
    sender.send(100, own_per_s=100)
    assert fields(sender.refusal(own_per_s=100))["RateLimit-Policy"] == '"token";q=100;w=1'
    # His other tokens are not in debt for it.
    sender.send()
    sender.send(own_per_s=99.5)


def test_a_rate_of_its_own_counts_if_nothing_else_is_limited() -> None:
    sender = Sender()
    assert sender.limiter.identify("alice", None, DEVICE, ADDRESS) is None
    assert len(sender.name(own_per_s=2.5).rates) == 1
    sender.send(26, own_per_s=2.5)
    sender.refusal(own_per_s=2.5)
    sender.send(1_000_000)
    sender.send()


@pytest.mark.parametrize("own_per_s", [1e-300, 0.0, 1e300, float("inf")])
def test_no_rate_of_its_own_is_a_fault_of_ours(own_per_s: float) -> None:
    sender = Sender()
    sender.send(own_per_s=own_per_s)
    if own_per_s < 1:
        assert fields(sender.refusal(own_per_s=own_per_s))["RateLimit-Policy"] == '"token";q=1;w=1000'


@pytest.mark.parametrize("kind", ["token", "device", "address"])
@pytest.mark.parametrize("number", ["rate_per_s", "quota_per_day"])
def test_a_sender_is_limited_by_each_limit(kind: str, number: str) -> None:
    limited_as = Sender(**{f"{kind}_{number}": 1}).name()
    named = [key for _, key, *_ in (*limited_as.rates, *limited_as.quotas)]
    assert named == [{"token": "alice", "device": DEVICE, "address": ADDRESS}[kind]]


# Quotas


def test_a_quota_ends_with_the_day() -> None:
    sender = Sender(device_quota_per_day=10)
    sender.send(9)
    sender.send(5)
    refusal = sender.refusal()
    assert refusal.detail == "this device may send 10 events a day"
    assert refusal.headers == (
        ("Retry-After", "43200"),
        ("RateLimit-Policy", '"device-day";q=10;w=86400'),
        ("RateLimit", '"device-day";r=0;t=43200'),
    )
    sender.now_s = DAY_S / 2 - 0.5
    assert fields(sender.refusal())["Retry-After"] == "1"
    sender.now_s = DAY_S / 2
    sender.send(9)
    sender.send(1)
    assert fields(sender.refusal())["Retry-After"] == "86400"


def test_a_clock_that_is_set_changes_the_day_within_a_minute() -> None:
    sender = Sender(token_quota_per_day=1)
    sender.send()
    sender.clock_s += DAY_S
    sender.now_s = 59
    sender.refusal()
    sender.now_s = 60
    sender.send()
    sender.refusal()


# Memory


def test_there_are_two_generations_of_accounts_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "KEYS_MAX", 100)
    accounts = Accounts(LONG_AGO)
    for number in range(1_000):
        accounts[f"{number}"] = max(accounts[f"{number}"], number)
        assert len(accounts) + len(accounts._older) <= 200
    assert [accounts[f"{number}"] for number in (800, 999, 799)] == [800, 999, LONG_AGO]


def test_a_long_key_is_kept_short_and_is_still_one_of_its_own() -> None:
    sender = Sender(token_rate_per_s=1, device_rate_per_s=1)
    texts = ["a" * 5_000, "a" * 4_999, "é" * 101, "\udcff" * 101, "b" * 101, "b" * 100]
    keys = [key for text in texts for _, key, *_ in sender.name(text, device=None).rates]
    devices = [b"a" * 5_000, b"b" * 101, b"b" * 100]
    keys += [key for device in devices for _, key, *_ in sender.name("", device=device).rates[1:]]
    assert len(keys) == len(texts) + len(devices)
    # A text and bytes of the same letters belong to accounts of different kinds.
    assert len(set(keys)) == len(keys) - 2
    assert max(map(len, keys)) == 100


def test_a_long_name_has_a_rate_of_its_own_too() -> None:
    sender = Sender()
    for sub in ("a" * 5_000, "a" * 4_999):
        sender.send(26, sub=sub, own_per_s=2.5)
        assert fields(sender.refusal(sub=sub, own_per_s=2.5))["RateLimit-Policy"] == '"token";q=25;w=10'


def test_a_refused_request_makes_no_account_of_a_kind_that_is_not_limited() -> None:
    sender = Sender(device_rate_per_s=1, rate_burst_s=1)
    sender.send()
    sender.refusal()
    accounts = [*sender.limiter._debts.values(), *sender.limiter._counts.values()]
    assert [len(each) for each in accounts] == [0, 1, 0, 0, 0, 0]
    assert sender.limiter.identify("alice", None, None, ADDRESS) is None


def test_asking_alone_counts_nothing() -> None:
    sender = Sender(token_rate_per_s=0.001, rate_burst_s=1, token_quota_per_day=2)
    sender.now_s = time.monotonic()
    for _ in range(100):
        sender.limiter.check(sender.name())
    sender.send(2)
    with pytest.raises(Rejection):
        sender.limiter.check(sender.name())
