"""A server that grows is told from one that stays as it is."""

from chaos.sampling import Trend, find_trend, judge


def test_a_short_series_has_no_trend() -> None:
    assert find_trend([(float(second), 1.0) for second in range(8)]) is None


def test_a_trend_compares_the_thirds_and_has_the_slope_of_an_hour() -> None:
    trend = find_trend([(second * 60.0, 100.0 + second) for second in range(9)])
    assert trend == Trend(first=101, last=107, slope=60, most=108)


def test_a_server_that_grows_is_said_to_grow() -> None:
    level = Trend(80, 84, 1, 90)
    assert "are level" in judge(level, Trend(30, 32, 0, 40))
    assert "**grow**" in judge(Trend(80, 100, 40, 100), Trend(30, 32, 0, 40))
    assert "**grow**" in judge(level, Trend(30, 60, 30, 60))
    assert "too short" in judge(None, None)
