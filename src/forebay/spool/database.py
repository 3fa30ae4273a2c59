"""Opening the spool's file: one owner, one version, settings under which a commit is synced."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from forebay.errors import SpoolDamaged, SpoolUnusable
from forebay.spool import log_look
from forebay.spool.files import SpoolFiles
from forebay.spool.rescue import damage
from forebay.spool.statements import SCHEMA

APPLICATION_ID = 0x466F7262
"""`Forb` in ASCII, so that `file` and we know a spool from another SQLite database."""

BUSY_TIMEOUT_S = 5
"""How long to wait for a command that runs beside the server and is writing."""

LOCK_TRIES = 5
LOCK_RETRY_S = 0.05
"""`forebay doctor` holds the lock for an instant when it looks for the owner."""

OPENED = "opened\n"
CLOSED = "closed\n"
_LOCK_CHARS_MAX = 100

INCREMENTAL = 2
WAL_PAGES_BEFORE_CHECKPOINT = 4000
WAL_BYTES_KEPT = 64 * 1024 * 1024


def lock(files: SpoolFiles) -> IO[str]:
    """Become the one owner of a spool; closing the returned file, or dying, gives it up.

    The lock is on a file of its own: SQLite's own locks on the database would be lost with the first descriptor of it
    that this process closes (https://sqlite.org/howtocorrupt.html, section 2.2). It is beside the database itself, also
    where the path is a link to it.

    Raises:
        SpoolUnusable: another process owns the spool, or its folder cannot be written.
    """
    try:
        files.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = files.lock.open("a+", encoding="ascii")
            with closed_on_failure(file):
                _lock(file, files.path)
                if _is_in_place(file):
                    return file
            file.close()
    except OSError as error:
        raise SpoolUnusable(f"DATABASE_URL: {files.path} cannot be opened: {error.strerror or error}") from error


def was_opened(lock: IO[str]) -> bool:
    """Return whether the file that a lock stands for has been opened as a spool, by this owner or one before it."""
    lock.seek(0)
    return OPENED in lock.read(_LOCK_CHARS_MAX)


def was_closed(lock: IO[str]) -> bool:
    """Return whether the last owner ended in order."""
    lock.seek(0)
    return CLOSED in lock.read(_LOCK_CHARS_MAX)


def note_opened(lock: IO[str]) -> None:
    """Remember that the file is a spool, which a damaged one may not tell by itself, and that it has an owner."""
    _write_state(lock, OPENED)


def note_closed(lock: IO[str]) -> None:
    """Remember that its owner ends in order."""
    # A disk without room even for this makes the next start tell more than has happened.
    with contextlib.suppress(OSError):
        lock.write(CLOSED)
        lock.flush()


def _write_state(lock: IO[str], state: str) -> None:
    lock.truncate(0)
    lock.write(f"pid {os.getpid()}\n{state}")
    lock.flush()


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for its owner, making it if there is none and bringing an older one up to date.

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
            _check(connection, path)
            _configure(connection)
    except sqlite3.Error as error:
        raise unusable(path, "opened", error) from error
    return connection


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Give a new or older database the tables of this version.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(SCHEMA[version:], version + 1):
        # In one transaction with its version, so that a crash in the middle leaves the version before it, whole.
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def connect_beside(path: Path) -> sqlite3.Connection:
    """Open the database for a command that runs beside its owner, or without one.

    Raises:
        SpoolUnusable: there is no spool at that path, it cannot be read, or its owner has yet to bring it up to date.
    """
    if not path.exists():
        raise SpoolUnusable(f"DATABASE_URL: there is no database at {path}; has the server run in this folder?")
    files = SpoolFiles(path)
    if files.doubt.exists():
        raise SpoolUnusable(f"DATABASE_URL: a sync of {files.log.name} failed; restart the server, which mends it")
    refuse_unsafe(files)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        with closed_on_failure(connection):
            if _check(connection, path) < len(SCHEMA):
                raise SpoolUnusable(
                    f"DATABASE_URL: {path} holds no spool of this version; start the server, which brings it up to date"
                )
    except sqlite3.Error as error:
        raise unusable(path, "read", error) from error
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the database so that nothing can be changed in it, not even by closing it.

    The last connection to a database that was not opened for reading alone writes the log back, and deletes it. That is
    for the owner, which first looks at what it finds.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def refuse_unsafe(files: SpoolFiles) -> None:
    """Leave to the owner what SQLite would make worse by opening it, for reading too.

    It deletes the log beside an empty database, and writes over a log that it cannot read.

    Raises:
        SpoolUnusable: restart the server, which saves what there is.
    """
    if not files.database.stat().st_size:
        raise SpoolUnusable(f"DATABASE_URL: {files.path} is empty; restart the server, which saves what its log holds")
    if log_look.is_header_broken(files.read_log_start()):
        raise SpoolUnusable(f"DATABASE_URL: nobody can read {files.log.name}; restart the server, which keeps it")


def unusable(path: Path, wish: str, error: sqlite3.Error) -> SpoolUnusable:
    """Return SQLite's error as one that a person can act on; `wish` is what was to be done to the file."""
    text = f"DATABASE_URL: {path} cannot be {wish}: {error}"
    return SpoolDamaged(text, str(error)) if damage.is_damage(error) else SpoolUnusable(text)


@contextlib.contextmanager
def closed_on_failure(held: IO[str] | sqlite3.Connection) -> Iterator[None]:
    """Close what was opened if what is done within fails, and leave it open if not."""
    try:
        yield
    except BaseException:
        held.close()
        raise


def _lock(file: IO[str], path: Path) -> None:
    if not _take(file):
        file.seek(0)
        owner = file.read(_LOCK_CHARS_MAX).partition("\n")[0]
        raise SpoolUnusable(
            f"DATABASE_URL: {path} belongs to another process{f' ({owner})' if owner else ''}; "
            "stop it, or give this one a database of its own"
        )
    state = (OPENED if was_opened(file) else "") + (CLOSED if was_closed(file) else "")
    _write_state(file, state)


def _take(file: IO[str]) -> bool:
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(LOCK_RETRY_S)
    return False


def _is_in_place(file: IO[str]) -> bool:
    """Say whether a lock is on the file that others would lock, and not on one that went with an emptied spool."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
    except FileNotFoundError:
        return False


def _check(connection: sqlite3.Connection, path: Path) -> int:
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
    return int(version)


def _configure(connection: sqlite3.Connection) -> None:
    # Both must come before the first table: they cannot be changed later without rewriting the file.
    # Neither is set anew: in a file without tables that would write, over what its log still holds.
    if connection.execute("PRAGMA auto_vacuum").fetchone() != (INCREMENTAL,):
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # A first read makes log and index, whose names are looked up from here on.
    connection.execute("PRAGMA user_version").fetchone()
    # FULL syncs the log at every commit: without it an answered event could be lost with the power (invariant 1).
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_BEFORE_CHECKPOINT}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
