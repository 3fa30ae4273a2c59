"""Spans of time have one form, and whatever else is written is said to be none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from forebay.cli.durations import parse_before, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("36h", timedelta(hours=36)),
        ("7d", timedelta(days=7)),
        ("90min", timedelta(minutes=90)),
        ("0d", timedelta(0)),
        (" 36500d ", timedelta(days=36_500)),
    ],
)
def test_duration_is_a_whole_number_and_its_unit(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 d", "1d2h", "6m", "36502d", "٣d", "9999999999h"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a whole number with min, h or d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "days"), [("0m", (0, 0)), ("1m", (28, 31)), ("12m", (365, 366)), ("400d", (400, 400))]
)
def test_time_so_many_months_or_days_ago(text: str, days: tuple[int, int]) -> None:
    then = parse_before(text)
    ago = datetime.now(UTC) - then

    assert days[0] <= ago.days <= days[1]


@pytest.mark.parametrize("text", ["", "6", "6months", "-6m", "36h", "99999m", "99999999d"])
def test_anything_else_is_no_time_ago(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a whole number with m for months or d for days"):
        parse_before(text)
