import pytest

from benchmarks.reach.goals import Finding, Goal, table

LARGE = Goal("a ratio", "times", 0.9, 1.0)
SMALL = Goal("a size", "MB", 140, 110)


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (LARGE, 0.89, "**not met**"),
        (LARGE, 0.9, "met"),
        (LARGE, 1.0, "aim met"),
        (SMALL, 141, "**not met**"),
        (SMALL, 140, "met"),
        (SMALL, 110, "aim met"),
    ],
)
def test_the_aim_tells_which_direction_is_better(goal: Goal, value: float, verdict: str) -> None:
    assert goal.judge(value) == verdict


def test_a_row_shows_median_spread_and_verdict() -> None:
    row = table([Finding(LARGE, [0.8, 0.95, 1.2])]).splitlines()[-1]

    assert row == "| a ratio | **0.95 times** | 0.80, 0.95, 1.20 | 0.90 times | 1.00 times | met |"
