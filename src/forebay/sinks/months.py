"""The monthly indices of one environment, which of them are old, and which late events open. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from forebay.findings import Finding, Level


class StoredMonth(NamedTuple):
    """A month's index, and what it holds; `stored_bytes` as the sink counts them."""

    name: str
    documents: int
    stored_bytes: int


class MonthKeeper(Protocol):
    """Knows the monthly indices of a sink, and deletes them."""

    async def list_months(self) -> list[StoredMonth]:
        """Return the indices of this environment alone, oldest first.

        Raises:
            SinkUnreachable: the sink did not answer, or refused.
        """

    async def delete_month(self, index: str) -> None:
        """Delete a month; one that is gone already is as good as deleted.

        Raises:
            SinkUnreachable: the sink did not answer, or refused.
        """

    async def close(self) -> None:
        """Let go of connections and files."""


def month_of(index: str, environment: str) -> tuple[int, int] | None:
    """Return the year and the month in the name of an environment's index, or None where it is no such name.

    The whole name counts: `events_prod_eu_2026-01` belongs to `prod_eu` and never to `prod`.
    """
    match = re.fullmatch(rf"events_{re.escape(environment)}_(\d{{4}})-(0[1-9]|1[0-2])", index, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def index_of(environment: str, now: datetime, months: int) -> str:
    """Return the name of the index of the month that lies so many months from now."""
    year, month = _move(now, months)
    return f"events_{environment}_{year:04}-{month:02}"


def choose_old(months: Iterable[StoredMonth], environment: str, before: datetime, now: datetime) -> list[StoredMonth]:
    """Return the months that ended before a time, whatever it is without the current one and the one before it.

    Those two still take most of the events that come; one of any other month opens its index again (`tell_of_late`).
    """
    first_kept = _move(now.astimezone(UTC), -1)
    chosen = []
    for stored in months:
        month = month_of(stored.name, environment)
        if month is not None and month < first_kept and _end(month) <= before:
            chosen.append(stored)
    return sorted(chosen)


def tell_of_late(deleted: Iterable[StoredMonth], environment: str, oldest_month: str) -> str:
    """Return what late events do to months that are deleted, empty where none of them takes any."""
    reached = [month for stored in deleted if (month := month_of(stored.name, environment))]
    if not reached or _show(max(reached)) < oldest_month:
        return ""
    return (
        f"late events of these months, back to {oldest_month} (FOREBAY_OLDEST_MONTH), open their indices again; "
        f"with {_end(max(reached)):%Y-%m} they go to the month in which they come"
    )


def judge_months(what: str, indices: Iterable[str], environment: str, oldest_month: str) -> Finding:
    """Say which months there are, and which ones late events may still open."""
    months = sorted(_show(month) for index in indices if (month := month_of(index, environment)))
    if not months:
        return Finding(Level.OK, what, f"none; events open any from {oldest_month} (FOREBAY_OLDEST_MONTH) on")
    text = f"{len(months)}, from {months[0]} to {months[-1]}"
    if months[0] > oldest_month:
        text += f"; late events open earlier ones too, back to {oldest_month} (FOREBAY_OLDEST_MONTH)"
    elif months[0] < oldest_month:
        text += f"; those before {oldest_month} (FOREBAY_OLDEST_MONTH) take no events"
    return Finding(Level.OK, what, text)


def months_before(now: datetime, months: int) -> datetime:
    """Return the same time of the month so many months ago, or the month's last day where it has no such day.

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


def _show(month: tuple[int, int]) -> str:
    year, number = month
    return f"{year:04}-{number:02}"


def _end(month: tuple[int, int]) -> datetime:
    start = datetime(*month, 1, tzinfo=UTC)
    return datetime(*_move(start, 1), 1, tzinfo=UTC)
