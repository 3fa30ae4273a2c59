"""The lock of a spool's owner: one process has it at a time, and sees if the one before it ended in order."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from forebay.errors import SpoolUnusable
from forebay.spool.files import SpoolFiles, closed_on_failure

TRIES = 5
RETRY_S = 0.05
"""Trying once is not enough: `forebay doctor` locks the file for an instant to find out who owns the spool."""

_OPENED = "opened\n"
_CLOSED = "closed\n"
_CHARS_MAX = 100


class OwnerLock:
    """The lock of the one owner. It is given up if it is closed, or if the process dies.

    It lies on a file of its own. A lock on the database would cost SQLite its own locks there: they are lost with the
    first descriptor of the file that this process closes (https://sqlite.org/howtocorrupt.html, section 2.2).

    Attributes:
        was_opened: somebody opened the database as a spool before.
        was_closed: its last owner ended in order.
    """

    def __init__(self, files: SpoolFiles) -> None:
        """Become the owner; the folder is made if there is none.

        Raises:
            SpoolUnusable: another process owns the spool, or its folder cannot be written.
        """
        try:
            files.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(files)
            with closed_on_failure(self._file):
                self._file.seek(0)
                state = self._file.read(_CHARS_MAX)
                self.was_opened, self.was_closed = _OPENED in state, _CLOSED in state
                self._write_state((_OPENED if self.was_opened else "") + (_CLOSED if self.was_closed else ""))
        except OSError as error:
            raise SpoolUnusable(f"DATABASE_URL: {files.path} cannot be opened: {error.strerror or error}") from error

    def note_opened(self) -> None:
        """Note that the file is a spool, which a damaged one may not show, and that it has an owner."""
        self._write_state(_OPENED)

    def note_closed(self) -> None:
        """Note that the owner ends in order; this does nothing after `close`."""
        if self._file.closed:
            return
        # If the disk has no room even for this, the next start reports an owner that was interrupted.
        with contextlib.suppress(OSError):
            self._file.write(_CLOSED)
            self._file.flush()

    def close(self) -> None:
        """Give the spool up; doing it again does nothing."""
        self._file.close()

    def _write_state(self, state: str) -> None:
        self._file.truncate(0)
        self._file.write(f"pid {os.getpid()}\n{state}")
        self._file.flush()


def _open_locked(files: SpoolFiles) -> IO[str]:
    while True:
        file = files.lock.open("a+", encoding="ascii")
        with closed_on_failure(file):
            if not _try_to_lock(file):
                raise _owned_by_another(file, files.path)
            if _is_in_place(file):
                return file
        file.close()


def _owned_by_another(file: IO[str], path: Path) -> SpoolUnusable:
    file.seek(0)
    owner = file.read(_CHARS_MAX).partition("\n")[0]
    return SpoolUnusable(
        f"DATABASE_URL: {path} belongs to another process{f' ({owner})' if owner else ''}; "
        "stop it, or give this one a database of its own"
    )


def _try_to_lock(file: IO[str]) -> bool:
    for _ in range(TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(RETRY_S)
    return False


def _is_in_place(file: IO[str]) -> bool:
    """Return whether a locked file is still at its path; it may have been removed with an emptied spool."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
    except FileNotFoundError:
        return False
