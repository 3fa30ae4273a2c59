"""Options that several commands share, and the choice of events that they make.

typer reads a command's options from the parameters of its function, so each command lists those that it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from forebay.clock import now_ms
from forebay.spool.beside.inspection import Choice
from forebay.spool.beside.requests import Burial

DURATION_UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
DURATION_FORM = "a whole number with min, h or d, such as 36h or 7d"
DURATION_DAYS_MAX = 36_500
NAME_BYTES_MAX = 8 * 1024
END_FORM = "a day such as 2027-01-01, or a time such as 2027-01-01T12:00:00Z"


def parse_duration(text: str) -> timedelta:
    """Return the duration that an option gives.

    Raises:
        typer.BadParameter: it is not a whole number with a unit, or it is too long.
    """
    match = re.fullmatch(r"([0-9]{1,9})(min|h|d)", text.strip())
    duration = int(match[1]) * DURATION_UNITS[match[2]] if match else None
    if duration is None or duration.days > DURATION_DAYS_MAX:
        raise typer.BadParameter(f"{text!r} is not {DURATION_FORM}")
    return duration


def parse_end(text: str) -> datetime:
    """Return the time that an option gives.

    Raises:
        typer.BadParameter: it is neither a day nor a time with its zone, or it is over.
    """
    try:
        end = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not {END_FORM}") from None
    if end.tzinfo is None:
        # Without a zone, a time could be meant in any.
        if "T" in text or " " in text.strip():
            raise typer.BadParameter(f"{text!r} is not {END_FORM}")
        end = end.replace(tzinfo=UTC)
    if end <= datetime.now(UTC):
        raise typer.BadParameter(f"{text!r} is over")
    return end


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Limit = Annotated[int, typer.Option("-n", "--limit", min=0, max=10_000, help="Show this many at most.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

All = Annotated[bool, typer.Option("--all", help="All of them.")]
LogIds = Annotated[
    list[str] | None, typer.Argument(metavar="LOG_ID", show_default=False, help="Only events with these log_ids.")
]
Index = Annotated[str | None, typer.Option(help="Only events of this index.")]
ErrorType = Annotated[str | None, typer.Option("--type", help="Only dead letters with this error_type.")]
Reason = Annotated[str | None, typer.Option(help="Only if the reason contains this text, in upper or lower case.")]
Refused = Annotated[bool, typer.Option("--refused", help="Only events that the sink has refused at least once.")]
DiedBefore = Annotated[
    timedelta | None,
    typer.Option(
        "--older-than", parser=parse_duration, metavar="36h|7d", help="Only those that died longer ago than this."
    ),
]
DiedSince = Annotated[
    timedelta | None,
    typer.Option(
        "--newer-than", parser=parse_duration, metavar="36h|7d", help="Only those that died within this time."
    ),
]
ReceivedBefore = Annotated[
    timedelta | None,
    typer.Option(
        "--older-than", parser=parse_duration, metavar="36h|7d", help="Only events received longer ago than this."
    ),
]

Why = Annotated[str, typer.Option("--reason", help="Your own words, shown by list.")]
Until = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_end, metavar="2027-01-01", help="Until this day begins in UTC, or this time: 2027-01-01T12:00:00Z."
    ),
]
Days = Annotated[int | None, typer.Option(min=1, max=DURATION_DAYS_MAX, help="For so many days from now on.")]

_MILLISECOND = timedelta(milliseconds=1)


def choose_letters(
    log_ids: Sequence[str] | None,
    error_type: str | None,
    reason: str | None,
    index: str | None,
    older_than: timedelta | None,
    newer_than: timedelta | None,
    *,
    everything: bool | None = None,
) -> Choice:
    """Return the choice of the dead letters that meet every condition.

    Args:
        log_ids: one of these.
        error_type: this one.
        reason: a part of it.
        index: this one.
        older_than: least time since they died.
        newer_than: greatest time since they died.
        everything: whether `--all` was given; None if the command means all of them anyway.

    Raises:
        typer.BadParameter: a text is not UTF-8, or neither a condition nor `--all` was given, or both.
    """
    if everything is not None:
        conditions = {
            "LOG_ID": log_ids,
            "--type": error_type,
            "--reason": reason,
            "--index": index,
            "--older-than": older_than,
            "--newer-than": newer_than,
        }
        _check_explicit(conditions, everything=everything)
    _check_texts((*(log_ids or ()), error_type, reason, index))
    # Letters that die from now on are not meant.
    now = now_ms() + 1
    return Choice(
        tuple(dict.fromkeys(log_ids or ())),
        error_type,
        reason,
        index,
        None if older_than is None else now - older_than // _MILLISECOND,
        None if newer_than is None else now - newer_than // _MILLISECOND,
        started_ms=now,
    )


def choose_pending(
    log_ids: Sequence[str] | None, index: str | None, older_than: timedelta | None, *, refused: bool, everything: bool
) -> Burial:
    """Return the burial of the pending events that meet every condition.

    Raises:
        typer.BadParameter: a text is not UTF-8, or neither a condition nor `--all` was given, or both.
    """
    conditions = {"LOG_ID": log_ids, "--index": index, "--refused": refused or None, "--older-than": older_than}
    _check_explicit(conditions, everything=everything)
    _check_texts((*(log_ids or ()), index))
    # Events that are received from now on are not meant.
    received_before_ms = now_ms() + 1 - (older_than or timedelta()) // _MILLISECOND
    return Burial(received_before_ms, frozenset(log_ids or ()), index, refused, also_ahead=older_than is None)


def choose_end(until: datetime | None, days: int | None) -> datetime | None:
    """Return the time up to which an entry of the denial list holds, or None if it holds for good.

    Raises:
        typer.BadParameter: both options were given.
    """
    if until is not None and days is not None:
        raise typer.BadParameter("only one of them can be used", param_hint=["--until", "--days"])
    return until if days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def check_names(names: Iterable[str]) -> None:
    """Check the names of senders.

    Raises:
        typer.BadParameter: one of them is empty, not UTF-8, or longer than a token or a head may be.
    """
    names = tuple(names)
    _check_texts(names)
    if not all(names):
        raise typer.BadParameter("must not be empty")
    if any(len(name.encode()) > NAME_BYTES_MAX for name in names):
        raise typer.BadParameter(f"must not be longer than {NAME_BYTES_MAX} bytes")


def _check_explicit(conditions: Mapping[str, object], *, everything: bool) -> None:
    # A forgotten condition must not mean all.
    is_given = any(value not in (None, []) for value in conditions.values())
    if is_given == everything:
        raise typer.BadParameter("either some of them or --all is needed", param_hint=list(conditions))


def _check_texts(texts: Iterable[str | None]) -> None:
    for text in texts:
        # A shell passes on bytes that are not UTF-8, and SQLite takes none of them.
        if text is not None and not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise typer.BadParameter(f"{text!r} is not UTF-8")
