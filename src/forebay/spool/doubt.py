"""A commit that failed: whether it may come back, and how it is kept from that.

SQLite writes all frames of a commit to its log, then syncs them, then notes them in the index of the log
(`sqlite3WalFrames` in https://sqlite.org/src/file/src/wal.c). If it fails, it forgets the commit. But what is whole in
the log counts for the next start.
"""

from __future__ import annotations

import sqlite3

import structlog

from forebay.spool import writing
from forebay.spool.files import OpenFiles, SpoolFiles

_PRIMARY = 0xFF
_CUT_OFF = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}
_BEFORE_ANY_FRAME = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ}

log = structlog.get_logger("forebay.spool")


def was_cut_off(error: BaseException) -> bool:
    """Return whether a commit failed while it was being written to the log.

    Its last frame was not written to its end. What the log held there before can make it whole all the same.
    """
    return getattr(error, "sqlite_errorcode", None) in _CUT_OFF


def may_be_committed(error: BaseException) -> bool:
    """Return whether a commit that failed so may have been written whole to the log.

    It may after any failure of the disk, or of memory, but those to read or write.
    """
    if isinstance(error, MemoryError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    is_of_disk = isinstance(code, int) and code & _PRIMARY == sqlite3.SQLITE_IOERR
    return is_of_disk and code not in _CUT_OFF | _BEFORE_ANY_FRAME


def make_certain(
    error: BaseException, connection: sqlite3.Connection, files: SpoolFiles, open_files: OpenFiles
) -> bool:
    """Keep what failed from coming back; return whether that is certain. Nobody in this process may be reading."""
    if was_cut_off(error):
        is_certain = _strike_out(connection, open_files) or _empty_log(connection, open_files)
    else:
        log.error("commit_failed", cause=str(error))
        files.mark_doubt()
        is_certain = _empty_log(connection, open_files)
    if is_certain:
        files.doubt.unlink(missing_ok=True)
    else:
        files.mark_doubt()
        log.error("commit_in_doubt", consequence="those who wait get no answer; the process ends")
    return is_certain


def _strike_out(connection: sqlite3.Connection, open_files: OpenFiles) -> bool:
    """Spoil what is in the log behind all that counts. It takes no room, which a full disk has none of."""
    try:
        connection.execute("BEGIN IMMEDIATE")  # nobody else writes meanwhile
        try:
            open_files.strike_out()
        finally:
            connection.execute("ROLLBACK")
    except (sqlite3.Error, OSError) as error:
        log.error("log_not_mended", cause=str(error))  # noqa: TRY400 - the cause says it all
        return False
    return True


def _empty_log(connection: sqlite3.Connection, open_files: OpenFiles) -> bool:
    """Have SQLite write its log back and cut it off."""
    try:
        if not writing.empty_log(connection):
            return False
        # SQLite does not sync the cut, and a power cut would undo it.
        open_files.sync_log()
    except (sqlite3.Error, OSError, MemoryError) as error:
        log.error("log_not_emptied", cause=str(error))  # noqa: TRY400 - the cause says it all
        return False
    return True
