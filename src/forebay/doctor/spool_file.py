"""Checks whether a spool's file is whole, as far as SQLite and the codec of the groups can tell."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forebay.doctor.context import Context
from forebay.doctor.finding import SHOWN_MAX, Finding, fail, ok
from forebay.doctor.spool_state import open_read_only
from forebay.spool.beside.inspection import SQL
from forebay.spool.codec import GroupCodec

SHORT_S_MAX = 10.0
"""The time for a file, unless a full check was asked for: a person waits for the other lines."""

STEPS_PER_CLOCK_READING = 10_000


class Integrity(NamedTuple):
    """The faults of a file, and the groups that cannot be read; `finished` if all of it was checked."""

    problems: list[str]
    damaged_groups: list[str]
    finished: bool


def check(context: Context) -> Iterator[Finding]:
    """Check every page of the file and every group, or as many as there is time for."""
    seconds_max = None if context.is_full else SHORT_S_MAX
    if context.spool.exists():
        yield from judge_integrity(check_integrity(context.spool, seconds_max), seconds_max)


def judge_integrity(integrity: Integrity, seconds_max: float | None) -> Iterator[Finding]:
    """Judge the integrity of a file, which was checked for so long at the most."""
    if integrity.problems:
        shown = "; ".join(" ".join(problem.split()) for problem in integrity.problems[:SHOWN_MAX])
        advice = (
            "see the server's line first; then stop it, copy the file and its -wal away, and start it to save the rest"
        )
        yield fail(f"damaged: {shown}", advice)
    elif not integrity.finished and seconds_max is not None:
        text = f"no damage found in {seconds_max:g} s, and not all of it was checked"
        yield ok(text, "`forebay doctor --full` checks all of it")
    else:
        yield ok("whole")
    if integrity.damaged_groups:
        shown = "; ".join(integrity.damaged_groups[:SHOWN_MAX])
        advice = "keep a copy of the file; they stay in it, and the others are delivered"
        yield fail(f"{len(integrity.damaged_groups)} groups cannot be read: {shown}", advice)


def check_integrity(path: Path, seconds_max: float | None) -> Integrity:
    """Have SQLite check the file, and unpack each group.

    Args:
        path: the spool.
        seconds_max: the time after which to stop, or None to go to the end.

    Raises:
        SpoolError: it cannot be read at all.
    """
    deadline = None if seconds_max is None else time.monotonic() + seconds_max
    with open_read_only(path) as connection:
        # If it returns true, SQLite stops.
        connection.set_progress_handler(lambda: int(_is_over(deadline)), STEPS_PER_CLOCK_READING)
        try:
            rows = [str(text) for (text,) in connection.execute("PRAGMA quick_check(20)")]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return Integrity([], [], finished=False)
        except sqlite3.DatabaseError as error:
            return Integrity([str(error)], [], finished=True)
        problems = [] if rows == ["ok"] else rows
        connection.set_progress_handler(None, 0)
        damaged, finished = _unpack_all(connection, deadline)
        return Integrity(problems, damaged, finished)


def _unpack_all(connection: sqlite3.Connection, deadline: float | None) -> tuple[list[str], bool]:
    codec = GroupCodec()
    damaged: list[str] = []
    group_id = -1
    while row := connection.execute(SQL["next_group"], (group_id,)).fetchone():
        group_id = row[0]
        try:
            codec.read_group(row)
        except ValueError as error:
            damaged.append(f"group {group_id}: {error}")
        if _is_over(deadline):
            return damaged, False
    return damaged, True


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline
