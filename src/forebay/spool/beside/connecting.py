"""Opens a spool for a command, and leaves everything as its owner left it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from forebay.errors import SpoolUnusable
from forebay.spool import wal
from forebay.spool.database import BUSY_TIMEOUT_S, check_version, connect_to_read, unusable
from forebay.spool.files import SpoolFiles, closed_on_failure


def connect_beside(path: Path) -> sqlite3.Connection:
    """Open the database to read it and to leave requests, beside its owner or without one.

    Raises:
        SpoolUnusable: there is no spool at that path, it cannot be read, or its owner must bring it up to date first.
    """
    files = SpoolFiles(path)
    _refuse_missing(files)
    if files.doubt.exists():
        raise SpoolUnusable(f"DATABASE_URL: a sync of {files.wal.name} failed; restart the server, which mends it")
    _refuse_unsafe(files)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        with closed_on_failure(connection):
            check_version(connection, path, needs_tables=True)
    except sqlite3.Error as error:
        raise unusable(path, "read", error) from error
    return connection


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database so that nothing can be changed in it, not even by closing it.

    Raises:
        SpoolUnusable: there is no spool of this version at that path, or it cannot be read.
        sqlite3.Error: the block failed.
    """
    files = SpoolFiles(path)
    _refuse_missing(files)
    _refuse_unsafe(files)
    with contextlib.closing(connect_to_read(path)) as connection:
        check_version(connection, path, needs_tables=True)
        yield connection


def _refuse_missing(files: SpoolFiles) -> None:
    if not files.path.exists():
        raise SpoolUnusable(f"DATABASE_URL: there is no database at {files.path}; has the server run in this folder?")


def _refuse_unsafe(files: SpoolFiles) -> None:
    """Refuse a file that SQLite would make worse if it opened it, even to read.

    SQLite deletes the log beside an empty database, and writes over a log that it cannot read. The owner prevents that.
    """
    if not files.database.stat().st_size:
        raise SpoolUnusable(
            f"DATABASE_URL: {files.path} is empty; restart the server, which saves the events in its log"
        )
    if wal.is_unreadable(files):
        raise SpoolUnusable(f"DATABASE_URL: nobody can read {files.wal.name}; restart the server, which keeps it")
