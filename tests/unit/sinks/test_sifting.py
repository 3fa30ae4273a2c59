"""A request that is refused as a whole is sent in parts, down to the events at fault, or until it is known that all are
refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from forebay.model import DELIVERED, DUPLICATE, Entry, Outcome, Verdict
from forebay.sinks.sifting import RequestSize, Sifting
from unit.pipeline.fakes import make_entries

FORBIDDEN = Outcome(Verdict.REFUSED, "http_403", "no", whole=True, status=403)
TOO_LARGE = Outcome(Verdict.REFUSED, "http_413", "too large", whole=True, status=413, is_too_large=True)
AWAY = Outcome(Verdict.RETRY, "unreachable", "no answer in time", whole=True)


class Firewall:
    """A sink with given answers; it records the number of events of each request."""

    def __init__(self, answer: Callable[[list[Entry]], Outcome]) -> None:
        self.answer = answer
        self.requests: list[list[Entry]] = []

    def expect(self, index: str) -> None:
        """Do nothing."""

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        self.requests.append(entries)
        return [self.answer(entries)] * len(entries)


def refuse(*bad: Entry, with_outcome: Outcome = FORBIDDEN) -> Callable[[list[Entry]], Outcome]:
    return lambda entries: with_outcome if any(entry in entries for entry in bad) else DELIVERED


async def sift(
    sink: Firewall, entries: list[Entry], first: int = 0, *, taking: bool = False
) -> tuple[Sifting, Sequence[Outcome]]:
    sifting = Sifting(sink, lambda _: taking)
    return sifting, await sifting.deliver(1, entries, first)


@pytest.mark.parametrize("bad", [0, 1, 500, 998, 999])
@pytest.mark.parametrize("first", [0, 7])
async def test_one_event_that_is_refused_is_found_and_all_others_are_taken(bad: int, first: int) -> None:
    entries = make_entries(1000)
    sink = Firewall(refuse(entries[bad]))

    _, outcomes = await sift(sink, entries, first if first != bad else first + 1)

    assert [number for number, outcome in enumerate(outcomes) if outcome != DELIVERED] == [bad]
    assert (outcomes[bad].verdict, outcomes[bad].status, outcomes[bad].whole) == (Verdict.REFUSED, 403, False)
    assert len(sink.requests) <= 2 + 2 * 11, "halving, not one by one"


async def test_several_events_are_found_each() -> None:
    entries = make_entries(300)
    bad = {3, 4, 150, 299}
    sink = Firewall(refuse(*(entries[number] for number in bad)))

    _, outcomes = await sift(sink, entries)

    assert {number for number, outcome in enumerate(outcomes) if outcome != DELIVERED} == bad


async def test_a_sink_that_refuses_everything_is_asked_once_more_and_the_others_wait() -> None:
    entries = make_entries(1000)
    sink = Firewall(lambda _: FORBIDDEN)

    _, outcomes = await sift(sink, entries, 400)

    assert [len(request) for request in sink.requests] == [1000, 1]
    assert sink.requests[1] == [entries[400]]
    assert outcomes[400] == FORBIDDEN
    others = [*outcomes[:400], *outcomes[401:]]
    assert {(outcome.verdict, outcome.whole, outcome.status) for outcome in others} == {(Verdict.PAUSE, True, 0)}


async def test_the_one_that_goes_alone_may_be_the_one_at_fault_if_others_were_taken_meanwhile() -> None:
    entries = make_entries(64)
    sink = Firewall(refuse(entries[0]))

    _, outcomes = await sift(sink, entries, 0, taking=True)

    assert (outcomes[0].verdict, outcomes[0].whole) == (Verdict.REFUSED, False)
    assert outcomes[1:] == [DELIVERED] * 63


async def test_an_event_that_goes_alone_anyway_is_not_sent_twice() -> None:
    sink = Firewall(lambda _: FORBIDDEN)
    _, outcomes = await sift(sink, make_entries(1))
    assert outcomes == [FORBIDDEN]
    assert len(sink.requests) == 1


async def test_events_that_are_there_already_show_that_requests_pass() -> None:
    entries = make_entries(8)
    sink = Firewall(lambda request: FORBIDDEN if entries[5] in request else DUPLICATE)

    _, outcomes = await sift(sink, entries)

    assert [outcome.verdict for outcome in outcomes] == [
        *[Verdict.DUPLICATE] * 5,
        Verdict.REFUSED,
        *[Verdict.DUPLICATE] * 2,
    ]


async def test_a_sink_that_goes_away_is_not_asked_for_every_part() -> None:
    entries = make_entries(1000)
    answers = iter([FORBIDDEN, DELIVERED])
    sink = Firewall(lambda _: next(answers, AWAY))

    _, outcomes = await sift(sink, entries)

    assert outcomes == [DELIVERED, *[AWAY] * 999]
    assert len(sink.requests) == 3


async def test_a_request_that_is_too_large_is_halved_until_it_passes() -> None:
    entries = make_entries(64, size=100)
    sink = Firewall(lambda request: TOO_LARGE if sum(map(len, request)) > 1000 else DELIVERED)

    sifting, outcomes = await sift(sink, entries)

    assert outcomes == [DELIVERED] * 64
    assert [len(request) for request in sink.requests if len(request) > 8] == [64, 32, 16, 16, 32, 16, 16]
    assert sifting.size.bytes_max is not None
    assert 800 <= sifting.size.bytes_max <= 1000


async def test_one_event_that_is_too_large_alone_is_refused_and_the_others_are_taken() -> None:
    entries = [*make_entries(20, size=100), *make_entries(1, "large", size=2000), *make_entries(20, "f", size=100)]
    sink = Firewall(lambda request: TOO_LARGE if sum(map(len, request)) > 1000 else DELIVERED)

    _, outcomes = await sift(sink, entries)

    assert [number for number, outcome in enumerate(outcomes) if outcome != DELIVERED] == [20]
    assert (outcomes[20].status, outcomes[20].whole) == (413, False)


async def test_a_proxy_that_finds_everything_too_large_is_not_asked_for_every_event() -> None:
    sink = Firewall(lambda _: TOO_LARGE)

    _, outcomes = await sift(sink, make_entries(1000))

    assert len(sink.requests) <= 12
    assert {outcome.verdict for outcome in outcomes} == {Verdict.REFUSED, Verdict.PAUSE}
    assert all(outcome.whole for outcome in outcomes)


async def test_a_sink_without_memory_for_a_request_is_sent_less_next_time() -> None:
    entries = make_entries(64, size=100)
    full = Outcome(
        Verdict.RETRY, "circuit_breaking_exception", "Data too large", whole=True, is_busy=True, is_too_large=True
    )
    sink = Firewall(lambda request: full if len(request) > 8 else DELIVERED)

    sifting, outcomes = await sift(sink, entries)
    assert outcomes == [full] * 64
    assert len(sink.requests) == 1, "it is not halved now: the sink has too much to do"
    for events in (32, 16):
        assert sifting.size.bytes_max == events * 100
        await sifting.deliver(1, entries[:events], 0)
    assert sifting.size.bytes_max == 800
    assert await sifting.deliver(1, entries[:8], 0) == [DELIVERED] * 8


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_size_that_has_passed_is_tried_larger_now_and_then() -> None:
    clock = Time()
    size = RequestSize(clock)
    size.shrink(1000)
    assert size.bytes_max == 500
    size.grow(500)
    assert size.bytes_max == 500, "twice as much is known to be too large"
    clock.now += 61
    size.grow(500)
    assert size.bytes_max == 1000


def test_requests_that_are_small_anyway_prove_nothing_of_larger_ones() -> None:
    size = RequestSize(Time())
    size.shrink(1000)
    size.grow(100)
    assert size.bytes_max == 500


def test_a_larger_request_that_is_refused_too_says_nothing_about_the_size_that_passes() -> None:
    size = RequestSize(Time())
    size.shrink(1000)
    size.grow(400)
    size.shrink(100_000)
    assert size.bytes_max == 800


def test_a_size_grows_at_once_if_what_was_too_large_passes_now() -> None:
    size = RequestSize(Time())
    for request_bytes in (1000, 500, 250):
        size.shrink(request_bytes)
    assert size.bytes_max == 125
    for request_bytes in (250, 500, 1000):
        size.grow(request_bytes)
    assert size.bytes_max == 2000


async def test_parts_with_another_number_of_outcomes_than_events_shift_no_outcome_to_another_event() -> None:
    entries = make_entries(9)
    sink = Firewall(refuse(entries[0]))
    deliver = sink.deliver

    async def miscount(part: list[Entry]) -> list[Outcome]:
        outcomes = await deliver(part)
        if len(part) == len(entries):
            return outcomes
        # One too many for an odd part, one too few for an even one: together they are as many as there should be.
        return [*outcomes, DELIVERED] if len(part) % 2 else outcomes[1:]

    sink.deliver = miscount  # type: ignore[assignment]

    _, outcomes = await sift(sink, entries, 4)

    assert len(outcomes) == len(entries)
    assert DELIVERED not in outcomes, "nobody knows which"
