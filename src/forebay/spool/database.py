"""Opens the database: refuses a file that is no spool, makes the tables, and has every commit synced."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from forebay.errors import SpoolDamaged, SpoolUnusable
from forebay.spool.files import PAGE_BYTES, closed_on_failure
from forebay.spool.rescue.damage import is_damage
from forebay.spool.statements import SCHEMA

APPLICATION_ID = 0x466F7262
"""`Forb` in ASCII, by which `file` and we tell a spool from another SQLite database."""

BUSY_TIMEOUT_S = 5
"""The longest wait for a command that writes beside the server."""

INCREMENTAL = 2
WAL_PAGES_BEFORE_CHECKPOINT = 16 * 1024 * 1024 // PAGE_BYTES
WAL_BYTES_KEPT = 64 * 1024 * 1024


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for its owner; it is made if there is none, and brought up to date if it is older.

    Raises:
        SpoolUnusable: the file cannot be opened, is no spool, or was made by a newer Forebay; it is left untouched.
        SpoolDamaged: it is damaged.
    """
    connection = connect_as_it_is(path)
    with closed_on_failure(connection):
        try:
            bring_up_to_date(connection)
        except sqlite3.Error as error:
            raise unusable(path, "opened", error) from error
    return connection


def connect_as_it_is(path: Path) -> sqlite3.Connection:
    """Open the database for its owner without writing into it, unless it is new.

    Raises:
        SpoolUnusable, SpoolDamaged: as for `connect`.
    """
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        with closed_on_failure(connection):
            check_version(connection, path)
            _configure(connection)
    except sqlite3.Error as error:
        raise unusable(path, "opened", error) from error
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the database so that nothing can be changed in it, not even by closing it.

    If the last connection to a database may write, it writes the log back and deletes it. That is for the owner, which
    examines the log first.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Give a new or older database the tables of this version.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(SCHEMA[version:], version + 1):
        # In one transaction with its version: a crash in the middle leaves the version before, whole.
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def check_version(connection: sqlite3.Connection, path: Path, *, needs_tables: bool = False) -> None:
    """Refuse a database that is no spool or has an unknown version; one without tables is a new spool.

    Args:
        connection: an open connection to it.
        path: the name of the file in an error.
        needs_tables: refuse a new or older spool too; only its owner brings it up to date.

    Raises:
        SpoolUnusable: it is refused, and was left untouched.
        sqlite3.Error: it cannot be read.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and (application != APPLICATION_ID or version < 1):
        raise SpoolUnusable(f"DATABASE_URL: {path} is a database of another program; it was left untouched")
    if version > len(SCHEMA):
        raise SpoolUnusable(
            f"DATABASE_URL: {path} was written by a newer Forebay (version {version}, this one knows "
            f"{len(SCHEMA)}); it was left untouched"
        )
    if needs_tables and version < len(SCHEMA):
        raise SpoolUnusable(
            f"DATABASE_URL: {path} holds no spool of this version; start the server, which brings it up to date"
        )


def unusable(path: Path, wish: str, error: sqlite3.Error) -> SpoolUnusable:
    """Turn SQLite's error into one that a person can act on; `wish` is the verb: opened or read."""
    text = f"DATABASE_URL: {path} cannot be {wish}: {error}"
    return SpoolDamaged(text, str(error)) if is_damage(error) else SpoolUnusable(text)


def _configure(connection: sqlite3.Connection) -> None:
    # Both must come before the first table: they cannot be changed later without rewriting the file.
    # They are not set twice: in a file without tables that would write over the contents of its log.
    if connection.execute("PRAGMA auto_vacuum").fetchone() != (INCREMENTAL,):
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # A first read makes log and index, whose inode numbers are compared from here on.
    connection.execute("PRAGMA user_version").fetchone()
    # FULL syncs the log at every commit. Without it an answered event could be lost with the power (invariant 1).
    connection.execute("PRAGMA synchronous = FULL")
    # Some builds of SQLite, such as Debian's, write zeros over all that is deleted, pages that become free too: by far
    # the largest cost of a settled group. FAST writes zeros only to pages that are written anyway.
    connection.execute("PRAGMA secure_delete = FAST")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_BEFORE_CHECKPOINT}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
