"""Events that are far from the clock are expected in the index that the server must choose."""

import time

from chaos.faults.clock import BORDER_S, find_far_month, make_far


def month(at_s: float) -> str:
    return time.strftime("%Y-%m", time.gmtime(at_s))


def test_an_old_event_is_expected_in_its_own_month_and_one_from_the_future_in_any() -> None:
    now_s = time.time()
    for number in range(1, 10):
        assert find_far_month(make_far(number, now_s - BORDER_S)) == month(now_s - BORDER_S)
        assert find_far_month(make_far(number, now_s + BORDER_S)) is None


def test_far_events_behind_and_ahead_are_different_ones() -> None:
    now_s = time.time()
    for number in range(1, 10):
        assert make_far(number, now_s)["log_id"] != make_far(number, now_s + 1)["log_id"]
