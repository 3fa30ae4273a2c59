"""When a fallen worker is started again."""

from forebay.workers.supervisor import RESTARTS, UPTIME_S_MIN, Restarts


def test_a_worker_that_ran_for_long_is_started_again_at_once() -> None:
    restarts = Restarts()
    assert [restarts.delay_s(UPTIME_S_MIN) for _ in range(5)] == [0] * 5


def test_a_worker_that_falls_again_and_again_is_started_later_and_later_up_to_a_cap() -> None:
    restarts = Restarts()
    delays = [restarts.delay_s(0.1) for _ in range(100)]
    assert delays[:5] == [0, 0.5, 1, 2, 4]
    assert delays == sorted(delays)
    assert delays[-1] == RESTARTS.delay_s_max


def test_a_long_uptime_begins_anew() -> None:
    restarts = Restarts()
    for _ in range(10):
        restarts.delay_s(0.1)
    assert restarts.delay_s(UPTIME_S_MIN) == 0
    assert restarts.delay_s(0.1) == 0
    assert restarts.delay_s(0.1) == 0.5
