"""Commits in doubt: a commit failed, and yet the next start might count it. It is kept from that here.

SQLite writes all frames of a commit to its log, then syncs them, then notes them in the index of the log
(`sqlite3WalFrames` in https://sqlite.org/src/file/src/wal.c). If one of these steps fails, SQLite forgets the commit.
But the next start counts every commit that is whole in the log.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import structlog

from forebay.spool.files import SpoolFiles
from forebay.spool.store import Store
from forebay.spool.wal import Wal

_PRIMARY = 0xFF
_CUT_OFF = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}
_BEFORE_ANY_FRAME = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ}

log = structlog.get_logger("forebay.spool")


def was_cut_off(error: BaseException) -> bool:
    """Return whether a commit failed while it was being written to the log.

    The last frame was not written to its end. But older bytes of the log may make it whole all the same.
    """
    return getattr(error, "sqlite_errorcode", None) in _CUT_OFF


def may_be_committed(error: BaseException) -> bool:
    """Return whether a commit that failed with this error may have been written whole to the log.

    That is so after every failure of the disk or of memory, but for failures to read or to write.
    """
    if isinstance(error, MemoryError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    is_of_disk = isinstance(code, int) and code & _PRIMARY == sqlite3.SQLITE_IOERR
    return is_of_disk and code not in _CUT_OFF | _BEFORE_ANY_FRAME


def make_certain(error: BaseException, store: Store, files: SpoolFiles, wal: Wal) -> bool:
    """Keep a failed commit from coming back; return whether that is certain. No thread may be reading meanwhile."""
    if was_cut_off(error):
        is_certain = _spoil(store, wal) or _empty(store, wal)
    else:
        log.error("commit_failed", cause=str(error))
        files.note_doubt()
        is_certain = _empty(store, wal)
    if is_certain:
        files.doubt.unlink(missing_ok=True)
    else:
        files.note_doubt()
        log.error("commit_in_doubt", consequence="those who wait get no answer; the process ends")
    return is_certain


def settle_doubt(store: Store, files: SpoolFiles, wal: Wal) -> None:
    """After a failed sync, write the log to the disk once more, before SQLite builds on it.

    Raises:
        OSError: the disk still fails.
        sqlite3.Error: SQLite's lock could not be had.
    """
    with _locked(store):
        wal.write_again()
    files.doubt.unlink()


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Keep everybody else from writing during the block, which writes nothing through SQLite."""
    store.connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        store.connection.execute("ROLLBACK")


def _spoil(store: Store, wal: Wal) -> bool:
    """Spoil the part of the log that does not count. This needs no room, so it works on a full disk."""
    try:
        with _locked(store):
            wal.spoil_uncounted()
    except (sqlite3.Error, OSError) as error:
        log.error("log_not_mended", cause=str(error))  # noqa: TRY400 - the cause says it all
        return False
    return True


def _empty(store: Store, wal: Wal) -> bool:
    """Let SQLite write its log back and cut it off; return whether that worked, and is on the disk."""
    try:
        if not store.empty_log():
            return False
        # SQLite does not sync the cut, so that a power failure could undo it.
        wal.sync()
    except (sqlite3.Error, OSError, MemoryError) as error:
        log.error("log_not_emptied", cause=str(error))  # noqa: TRY400 - the cause says it all
        return False
    return True
