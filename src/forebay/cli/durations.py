"""Spans of time as they are written in options: a whole number and its unit."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

from forebay.sinks.months import months_before

UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
FORM = "a whole number with min, h or d, such as 36h or 7d"
MONTHS_FORM = "a whole number with m for months or d for days, such as 6m or 400d"
DAYS_MAX = 36_500


def parse_duration(text: str) -> timedelta:
    """Return what an option says (`typer.BadParameter` for anything else)."""
    match = re.fullmatch(r"([0-9]{1,9})(min|h|d)", text.strip())
    duration = int(match[1]) * UNITS[match[2]] if match else None
    if duration is None or duration.days > DAYS_MAX:
        raise typer.BadParameter(f"{text!r} is not {FORM}")
    return duration


def parse_before(text: str) -> datetime:
    """Return the time that lies so many months or days back (`typer.BadParameter` where the text says no such)."""
    now = datetime.now(UTC)
    match = re.fullmatch(r"([0-9]{1,5})([md])", text.strip())
    try:
        if match and match[2] == "m":
            return months_before(now, int(match[1]))
        if match:
            return now - timedelta(days=int(match[1]))
    except OverflowError:
        pass
    raise typer.BadParameter(f"{text!r} is not {MONTHS_FORM}")
