"""The limits of all connections together."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from forebay.errors import Rejection
from forebay.intake.limits import ConnectionLimits, read_length
from forebay.telemetry.counters import Counters, Overload


class FakeConnection:
    """A connection that frees its memory if it is dropped."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.used_bytes = 0
        self.ended = ""
        self._limits = limits

    def close_idle(self) -> None:
        self.ended = "closed"

    def drop_slow_request(self) -> None:
        self.ended = "dropped"
        self._limits.set_used_bytes(self, 0)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def limits(counters: Counters) -> ConnectionLimits:
    return ConnectionLimits(2, 100, counters)


def connections(limits: ConnectionLimits, count: int) -> list[FakeConnection]:
    return [FakeConnection(limits) for _ in range(count)]


def test_the_longest_idle_connection_is_closed_for_one_too_many(limits: ConnectionLimits, counters: Counters) -> None:
    first, second = connections(limits, 2)
    limits.idle.update({second: None, first: None})
    limits.make_room(2)
    assert not counters.crowded
    limits.make_room(3)
    assert (first.ended, second.ended) == ("", "closed")
    assert list(limits.idle) == [first]
    assert counters.crowded == {Overload.IDLE_CONNECTION: 1}


def test_if_no_connection_is_idle_the_newest_is_refused(limits: ConnectionLimits, counters: Counters) -> None:
    with pytest.raises(Rejection) as refusal:
        limits.make_room(3)
    assert (refusal.value.status, refusal.value.headers) == (503, (("Retry-After", "2"),))
    assert counters.crowded == {Overload.NEW_CONNECTION: 1}


def test_the_slowest_requests_are_dropped_until_the_limit_is_kept(limits: ConnectionLimits, counters: Counters) -> None:
    slow = connections(limits, 3)
    for connection in slow:
        limits.slow[connection] = None
        limits.set_used_bytes(connection, 50)
    assert limits.exceeded
    assert limits.find_room()
    assert [connection.ended for connection in slow] == ["dropped", "", ""]
    assert list(limits.slow) == slow[1:]
    assert not limits.exceeded
    assert counters.crowded == {Overload.SLOW_REQUEST: 1}


def test_memory_that_no_slow_client_uses_stays_used(limits: ConnectionLimits) -> None:
    quick, slow = connections(limits, 2)
    limits.slow[slow] = None
    limits.set_used_bytes(quick, 101)
    assert not limits.find_room()
    assert limits.exceeded
    limits.set_used_bytes(quick, 100)
    assert not limits.exceeded


def test_every_overload_is_counted_and_a_minute_of_it_logged_once(limits: ConnectionLimits, counters: Counters) -> None:
    with capture_logs() as lines:
        for _ in range(3):
            assert limits.reject_request().status == 503
    assert counters.crowded == {Overload.NEW_REQUEST: 3}
    assert [(line["event"], line["gave_way"]) for line in lines] == [("crowded", "new_request")]


@pytest.mark.parametrize("zeros", [0, 1, 4_299, 4_300, 10_000])
def test_a_length_may_have_zeros_in_front(zeros: int) -> None:
    assert read_length(b"0" * zeros + b"5") == 5
    assert read_length(b"0" * zeros + b"0 ") == 0
