"""A duration is a whole number and its unit; anything else is an error."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from forebay.cli.options import parse_duration


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
def test_anything_else_is_not_a_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a whole number with min, h or d"):
        parse_duration(text)
