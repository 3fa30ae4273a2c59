"""The monthly indices of one environment: their names, and the choice of the old ones. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple


class StoredMonth(NamedTuple):
    """A month's index with its size; `stored_bytes` as the sink counts them."""

    name: str
    documents: int
    stored_bytes: int


def month_of(index: str, environment: str) -> tuple[int, int] | None:
    """Return the year and the month in the name of an environment's index, or None if it is no such name.

    The whole name counts: `events_prod_eu_2026-01` belongs to `prod_eu` and never to `prod`.
    """
    match = re.fullmatch(rf"events_{re.escape(environment)}_(\d{{4}})-(0[1-9]|1[0-2])", index, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def require_month(index: str, environment: str) -> None:
    """Raise `ValueError` unless an index is a month of an environment: nothing else may be deleted."""
    if month_of(index, environment) is None:
        raise ValueError(f"{index} is no month of {environment}")


def select_months(months: Iterable[StoredMonth], environment: str) -> list[StoredMonth]:
    """Return the months of one environment, oldest first."""
    return sorted(stored for stored in months if month_of(stored.name, environment))


def index_of(environment: str, now: datetime, months: int) -> str:
    """Return the name of the index of the month that lies so many months from now."""
    year, month = _move(now, months)
    return f"events_{environment}_{year:04}-{month:02}"


def choose_old(months: Iterable[StoredMonth], environment: str, before: datetime, now: datetime) -> list[StoredMonth]:
    """Return the months that ended before a time, but never the current one or the one before it.

    Those two still take most of the events that come. A late event of any other month opens its index again
    (`describe_late_events`).
    """
    first_kept = _move(now.astimezone(UTC), -1)
    chosen = []
    for stored in months:
        month = month_of(stored.name, environment)
        if month is not None and month < first_kept and _end(month) <= before:
            chosen.append(stored)
    return sorted(chosen)


def describe_late_events(deleted: Iterable[StoredMonth], environment: str, oldest_month: str) -> str:
    """Return a sentence on late events of months that are deleted, empty if no late event can belong to them."""
    months = [month for stored in deleted if (month := month_of(stored.name, environment))]
    if not months or format_month(max(months)) < oldest_month:
        return ""
    return (
        f"late events of these months, back to {oldest_month} (FOREBAY_OLDEST_MONTH), open their indices again; "
        f"with {_end(max(months)):%Y-%m} they go to the month in which they come"
    )


def months_before(now: datetime, months: int) -> datetime:
    """Return the same time of the month so many months ago, or the month's last day if it has no such day.

    Raises:
        OverflowError: there was no such year.
    """
    year, month = _move(now, -months)
    if year < 1:
        raise OverflowError(f"{months} months ago there was no year")
    for day in (now.day, 30, 29, 28):
        try:
            return now.replace(year=year, month=month, day=day)
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")


def _move(time: datetime, months: int) -> tuple[int, int]:
    year, month = divmod(time.year * 12 + time.month - 1 + months, 12)
    return year, month + 1


def format_month(month: tuple[int, int]) -> str:
    """Return a month as it stands in the name of its index."""
    year, number = month
    return f"{year:04}-{number:02}"


def _end(month: tuple[int, int]) -> datetime:
    start = datetime(*month, 1, tzinfo=UTC)
    return datetime(*_move(start, 1), 1, tzinfo=UTC)
