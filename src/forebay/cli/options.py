"""Options that several commands share, and the choice of events that they make.

typer reads a command's options from the parameters of its function, so each command lists those that it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated

import typer

from forebay.clock import now_ms
from forebay.spool.beside.inspection import Choice
from forebay.spool.beside.requests import Burial

DURATION_UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
DURATION_FORM = "a whole number with min, h or d, such as 36h or 7d"
DURATION_DAYS_MAX = 36_500


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
        now - (older_than or timedelta()) // _MILLISECOND,
        None if newer_than is None else now - newer_than // _MILLISECOND,
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
    return Burial(received_before_ms, frozenset(log_ids or ()), index, refused)


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
