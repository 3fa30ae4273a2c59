"""Reads the state of one spool, beside its owner or without one; it cannot change anything."""

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
from forebay.spool.files import SpoolFiles
from forebay.spool.records import Totals

DAY_MS = 86_400_000
INCIDENT_DAYS = 30
INCIDENTS_MAX = 10


class Incident(NamedTuple):
    """Something that happened to the file itself."""

    at_ms: int
    kind: str
    detail: str


class SpoolState(NamedTuple):
    """The content of a spool at one moment.

    Attributes:
        at_s: that moment, on a clock that only goes forward.
        last_id: the number of the newest group, 0 if there is none.
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


def find_owner(path: Path) -> str | None:
    """Return the owner's own words about itself, or None if nobody has the spool open.

    To try for the lock takes it for an instant, in which no owner can start.
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


def read_state(path: Path) -> SpoolState:
    """Return the content of a spool.

    Raises:
        SpoolUnusable: it is no spool of this version, or cannot be opened.
        SpoolError: SQLite failed.
    """
    with open_read_only(path) as connection:
        oldest = connection.execute(SQL["oldest_group"]).fetchone()
        newest = connection.execute(SQL["newest_group"]).fetchone()
        since_ms = now_ms() - INCIDENT_DAYS * DAY_MS
        return SpoolState(
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
    """Count the events that are left of the groups up to `last_id` (`SpoolError` if SQLite fails)."""
    with open_read_only(path) as connection:
        return int(connection.execute(SQL["events_until"], (last_id,)).fetchone()[0])


@contextlib.contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a spool so that nothing can be changed in it, not even by closing it.

    Raises:
        SpoolUnusable: it is no spool of this version, or cannot be opened.
        SpoolError: SQLite failed.
    """
    try:
        with reading(path) as connection:
            yield connection
    except sqlite3.Error as error:
        raise SpoolError(f"{path} cannot be read: {error}") from error
