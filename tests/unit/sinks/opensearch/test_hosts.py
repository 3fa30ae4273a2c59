"""Which host a request goes to."""

from __future__ import annotations

from forebay.sinks.opensearch.hosts import BACKOFF, Hosts


def longest(_: float, upper: float) -> float:
    return upper


def make_hosts(count: int) -> Hosts:
    return Hosts(count, BACKOFF._replace(jitter=longest))


def probe(hosts: Hosts, now_s: float) -> int:
    """Return the host that a request without further chances goes to."""
    number = hosts.choose(now_s)
    assert number is not None
    return number


def test_living_hosts_are_chosen_in_turn() -> None:
    hosts = make_hosts(3)
    chosen = [probe(hosts, 0) for _ in range(6)]
    assert sorted(chosen[:3]) == [0, 1, 2]
    assert chosen[3:] == chosen[:3]


def test_a_request_tries_every_living_host_once() -> None:
    hosts = make_hosts(3)
    tried: list[int] = []
    while (number := hosts.choose(0, tried)) is not None:
        tried.append(number)
        hosts.failed(number, 0)
    assert sorted(tried) == [0, 1, 2]


def test_a_dead_host_is_left_out_until_it_is_due_and_then_tried_by_one_request_at_a_time() -> None:
    hosts = make_hosts(2)
    hosts.failed(0, 100)
    assert [probe(hosts, 100 + BACKOFF.delay_s_min / 2) for _ in range(5)] == [1] * 5
    assert probe(hosts, 100 + BACKOFF.delay_s_min) == 0
    assert [probe(hosts, 100 + BACKOFF.delay_s_min) for _ in range(5)] == [1] * 5


def test_a_dead_host_that_answers_is_one_of_the_living_again() -> None:
    hosts = make_hosts(2)
    hosts.failed(0, 100)
    assert probe(hosts, 200) == 0
    hosts.answered(0)
    assert {probe(hosts, 200) for _ in range(2)} == {0, 1}
    hosts.failed(0, 200)
    assert probe(hosts, 200 + BACKOFF.delay_s_min) == 0


def test_the_time_that_a_host_is_left_out_doubles_up_to_its_cap() -> None:
    hosts = make_hosts(2)
    now_s, times = 0.0, []
    hosts.failed(0, now_s)
    for _ in range(60):
        left_out_s = 0.0
        while hosts.choose(now_s + left_out_s) != 0:
            left_out_s += BACKOFF.delay_s_min
        times.append(left_out_s)
        now_s += left_out_s
        hosts.failed(0, now_s)
    assert times[:4] == [BACKOFF.delay_s_min, 2 * BACKOFF.delay_s_min, 4 * BACKOFF.delay_s_min, 8 * BACKOFF.delay_s_min]
    assert set(times[10:]) == {BACKOFF.delay_s_max}


def test_the_time_has_jitter() -> None:
    asked: list[tuple[float, float]] = []

    def shortest(lower: float, upper: float) -> float:
        asked.append((lower, upper))
        return lower

    hosts = Hosts(2, BACKOFF._replace(jitter=shortest))
    hosts.failed(0, 0)
    assert asked == [(BACKOFF.delay_s_min / 2, BACKOFF.delay_s_min)]
    assert probe(hosts, BACKOFF.delay_s_min / 2) == 0


def test_requests_that_were_on_their_way_when_a_host_died_do_not_leave_it_out_longer() -> None:
    hosts = make_hosts(2)
    for _ in range(10):
        hosts.failed(0, 100)
    assert probe(hosts, 100 + BACKOFF.delay_s_min) == 0


def test_a_try_that_nobody_waited_for_is_taken_over_by_the_next_request() -> None:
    hosts = make_hosts(2)
    hosts.failed(0, 0)
    assert probe(hosts, 10) == 0
    hosts.dropped(0)
    assert probe(hosts, 10) == 0


def test_with_all_dead_the_one_that_is_due_first_is_tried_alone() -> None:
    hosts = make_hosts(3)
    for number, now_s in ((2, 0), (0, 0.2), (1, 0.1)):
        hosts.failed(number, now_s)
    assert probe(hosts, 0.3) == 2
    assert hosts.choose(0.3, [2]) is None
    hosts.failed(2, 0.3)
    assert probe(hosts, 0.4) == 1


def test_a_host_without_another_is_always_tried() -> None:
    hosts = make_hosts(1)
    for _ in range(5):
        assert probe(hosts, 0) == 0
        hosts.failed(0, 0)
