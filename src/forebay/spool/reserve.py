"""The reserve: room on the disk for the day when the disk is full.

Deleting from a full disk takes room: the log must be written back to the file before it can begin anew, and the file
grows by that. So a file of that size lies beside the spool, and is emptied if the disk is full. No new events are taken
until it can be filled again. Pending events are delivered meanwhile, and deleted.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

RESERVE_BYTES = 16 * 1024 * 1024
"""The size to which the log grows before it is written back."""

LEFT_BYTES_MIN = 4 * 1024 * 1024
"""The room that must be left on the disk beside the reserve; else it would be given up again at once."""

TRY_EVERY_S = 1.0

log = structlog.get_logger("forebay.spool")


def is_disk_full(error: BaseException) -> bool:
    """Return whether SQLite found no room on the disk."""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


@contextlib.contextmanager
def unless_full() -> Iterator[None]:
    """Pass over the failure of the block if the disk had no room for it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if not is_disk_full(error):
            raise


class Reserve:
    """The file that takes the room, for the spool's thread alone.

    Attributes:
        given_up: the disk was full lately, so the rest of its room is for deletions. The next start knows that from the
            size of the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tried_at = 0.0
        self.given_up = file.exists() and file.stat().st_size != RESERVE_BYTES

    def take(self) -> None:
        """Take the room, if the disk has that and some more."""
        if self._take():
            if self.given_up:
                log.info("disk_has_room")
            self.given_up = False

    def give_up(self, cause: str) -> None:
        """Leave the room to deletions."""
        if not self.given_up:
            log.error("disk_full", cause=cause, consequence="no events are taken; deliveries go on")
        self.given_up = True
        self._tried_at = time.monotonic()
        self._empty()

    def is_wanted(self) -> bool:
        """Return whether the room was given up, and it is time to take it again."""
        if not self.given_up or time.monotonic() - self._tried_at < TRY_EVERY_S:
            return False
        self._tried_at = time.monotonic()
        return True

    def _take(self) -> bool:
        try:
            if self._file.exists() and self._file.stat().st_size == RESERVE_BYTES:
                return True
            free = os.statvfs(self._file.parent)
            if free.f_bavail * free.f_frsize < RESERVE_BYTES + LEFT_BYTES_MIN:
                return False
            with self._file.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            log.warning("no_reserve", cause=str(error))
            # A file that was made in part would tell the next start that the disk was full.
            if self.given_up:
                self._empty()
            else:
                self._file.unlink(missing_ok=True)
            return False
        return True

    def _empty(self) -> None:
        # There is no file if the disk never had the room; or it belongs to somebody else.
        with contextlib.suppress(OSError):
            os.truncate(self._file, 0)
