"""A commit that failed: whether the next start may count it, and how it is kept from that.

SQLite writes all frames of a commit to its log, then syncs them, then notes them in the index of the log
(`sqlite3WalFrames` in https://sqlite.org/src/file/src/wal.c). If that fails, it forgets the commit. But the next start
counts every commit that is whole in the log.
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

    Its last frame was not written to its end. Older bytes of the log can make it whole all the same.
    """
    return getattr(error, "sqlite_errorcode", None) in _CUT_OFF


def may_be_committed(error: BaseException) -> bool:
    """Return whether a commit that failed with this error may have been written whole to the log.

    It may after any failure of the disk, or of memory, but those to read or write.
    """
    if isinstance(error, MemoryError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    is_of_disk = isinstance(code, int) and code & _PRIMARY == sqlite3.SQLITE_IOERR
    return is_of_disk and code not in _CUT_OFF | _BEFORE_ANY_FRAME


def make_certain(error: BaseException, store: Store, files: SpoolFiles, wal: Wal) -> bool:
    """Keep the failed commit from coming back; return whether that is certain. No thread here may be reading."""
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
    """After a failed sync, have on the disk all of the log that SQLite counts.

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
    """Spoil all of the log that does not count. This takes no room, which a full disk has none of."""
    try:
        with _locked(store):
            wal.spoil_uncounted()
    except (sqlite3.Error, OSError) as error:
        log.error("log_not_mended", cause=str(error))  # noqa: TRY400 - the cause says it all
        return False
    return True


def _empty(store: Store, wal: Wal) -> bool:
    """Have SQLite write its log back and cut it off."""
    try:
        if not store.empty_log():
            return False
        # SQLite does not sync the cut, and a power cut would undo it.
        wal.sync()
    except (sqlite3.Error, OSError, MemoryError) as error:
        log.error("log_not_emptied", cause=str(error))  # noqa: TRY400 - the cause says it all
        return False
    return True
