"""A look into one spool by somebody who wants to know how it is: read-only, beside its owner or without one."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forebay.clock import now_ms
from forebay.errors import SpoolError
from forebay.spool.beside.connecting import reading
from forebay.spool.beside.inspection import SQL
from forebay.spool.codec import GroupCodec
from forebay.spool.files import SpoolFiles
from forebay.spool.records import Totals

DAY_MS = 86_400_000
INCIDENT_DAYS = 30
INCIDENTS_MAX = 10
STEPS_BETWEEN_LOOKS_AT_THE_CLOCK = 10_000


class Incident(NamedTuple):
    """Something that happened to the file itself."""

    at_ms: int
    kind: str
    detail: str


class Look(NamedTuple):
    """What a spool holds at one moment.

    Attributes:
        last_id: the number of the newest group, 0 where there is none.
        refused: pending events that the sink has refused, by the status of the last refusal, most first.
        dead_types: dead letters by type, most first, but for those that are on their way back.
        incidents: those of the last 30 days, newest first.
    """

    at_s: float
    totals: Totals
    oldest_at_ms: int | None
    newest_at_ms: int | None
    last_id: int
    refused: dict[int, int]
    dead_types: dict[str, int]
    incidents: list[Incident]


class Integrity(NamedTuple):
    """What is wrong with the file, and with which groups; `finished` where all of it was looked at."""

    problems: list[str]
    damaged_groups: list[str]
    finished: bool


def find_owner(path: Path) -> str | None:
    """Return what the owner says of itself, or None where nobody has the spool open.

    A lock that is only tried for is held for an instant in which no owner can start.
    """
    lock = SpoolFiles(path).lock
    try:
        with lock.open(encoding="ascii", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.readline().strip() or "a process"
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpoolError(f"{lock.name}: {error.strerror}") from error
    return None


def is_marked(path: Path) -> bool:
    """Return whether the owner has found the file to be damaged and not repaired it yet."""
    return SpoolFiles(path).damage_marker.exists()


def is_in_doubt(path: Path) -> bool:
    """Return whether a sync of the log has failed, and no start has mended it yet."""
    return SpoolFiles(path).doubt.exists()


def find_aside(path: Path) -> list[Path]:
    """Return the files that were moved aside."""
    return SpoolFiles(path).list_moved_away()


def count_file_bytes(path: Path) -> int:
    """Return the bytes that a spool takes on disk with its log."""
    sizes = []
    for file in SpoolFiles(path).of_sqlite:
        with contextlib.suppress(FileNotFoundError):
            sizes.append(file.stat().st_size)
    return sum(sizes)


def look(path: Path) -> Look:
    """Look at what a spool holds.

    Raises:
        SpoolUnusable: it is no spool of this version, or cannot be opened.
        SpoolError: SQLite failed.
    """
    with _read(path) as connection:
        oldest = connection.execute(SQL["oldest_group"]).fetchone()
        newest = connection.execute(SQL["newest_group"]).fetchone()
        since_ms = now_ms() - INCIDENT_DAYS * DAY_MS
        return Look(
            time.monotonic(),
            Totals(*connection.execute(SQL["totals"]).fetchone()),
            oldest and oldest[0],
            newest and newest[1],
            newest[0] if newest else 0,
            dict(connection.execute(SQL["refused_pending"]).fetchall()),
            dict(connection.execute(SQL["dead_types"]).fetchall()),
            [Incident(*row) for row in connection.execute(SQL["incidents_since"], (since_ms, INCIDENTS_MAX))],
        )


def count_left(path: Path, last_id: int) -> int:
    """Return how many events are left of the groups up to `last_id` (`SpoolError` where SQLite fails)."""
    with _read(path) as connection:
        return int(connection.execute(SQL["events_until"], (last_id,)).fetchone()[0])


def check_integrity(path: Path, seconds_max: float | None) -> Integrity:
    """Have SQLite check the file, and unpack each group.

    Args:
        path: the spool.
        seconds_max: how long to look at the most, or None for however long it takes.

    Raises:
        SpoolError: it cannot be read at all.
    """
    deadline = None if seconds_max is None else time.monotonic() + seconds_max
    with _read(path) as connection:
        # It stops what SQLite is at where it returns true.
        connection.set_progress_handler(lambda: int(_is_over(deadline)), STEPS_BETWEEN_LOOKS_AT_THE_CLOCK)
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


@contextlib.contextmanager
def _read(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with reading(path) as connection:
            yield connection
    except sqlite3.Error as error:
        raise SpoolError(f"{path} cannot be read: {error}") from error
