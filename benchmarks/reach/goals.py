"""The goals beside speed, and the table that shows which of them are met."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Goal(NamedTuple):
    """A figure that is to be reached, in one unit.

    Attributes:
        least: the value that has to be reached.
        aim: the value that is hoped for; beyond `least`, it tells which direction is better.
    """

    title: str
    unit: str
    least: float
    aim: float

    def judge(self, value: float) -> str:
        """Return whether a value meets the goal, in words."""
        sign = 1 if self.aim > self.least else -1
        if sign * value >= sign * self.aim:
            return "aim met"
        return "met" if sign * value >= sign * self.least else "**not met**"


class Finding(NamedTuple):
    """The values that were measured for a goal, one a round."""

    goal: Goal
    values: Sequence[float]


HEAD = "|  | median | by round | at least | aim |  |\n| --- | ---: | ---: | ---: | ---: | ---: |\n"


def table(findings: Sequence[Finding]) -> str:
    """Lay out findings, each with its spread and whether its goal is met."""
    return HEAD + "".join(map(_row, findings))


def _row(finding: Finding) -> str:
    goal = finding.goal
    median = statistics.median(finding.values)
    rounds = ", ".join(map(_number, finding.values))
    limits = f"{_number(goal.least)} {goal.unit} | {_number(goal.aim)} {goal.unit}"
    return f"| {goal.title} | **{_number(median)} {goal.unit}** | {rounds} | {limits} | {goal.judge(median)} |\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004 - three digits are enough
