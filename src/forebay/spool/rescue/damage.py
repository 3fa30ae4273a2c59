"""Notices damage to a spool's file. SQLite alone decides if there is any; a marker file tells the next start."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator

from forebay.spool.files import SpoolFiles, write_synced

_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PRIMARY = 0xFF

NICENESS = 19
CHECK_AGAIN_S = 1.0
INTERRUPT_EVERY_S = 0.01


def is_damage(error: BaseException | None) -> bool:
    """Return whether SQLite found the file in another state than it left it."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & _PRIMARY in _CODES


def leave_marker(files: SpoolFiles, cause: str) -> None:
    """Leave a marker, by which the next start knows that the spool is damaged."""
    if not files.damage_marker.exists():
        write_synced(files.damage_marker, f"\n{cause}\n")


def check(connection: sqlite3.Connection) -> str:
    """Check the whole file; return the first problem, empty if there is none.

    This takes as long as reading the file does. The thread gives way to all others meanwhile.
    """
    # On Linux a thread has a niceness of its own.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if result == "ok" else " ".join(str(result).split())


class Checker:
    """Checks the whole file once, in a thread beside the work on it."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], report: Callable[[str], None]) -> None:
        """`connect` opens the file only for reading; `report` is called in the thread with the first problem."""
        self._connect = connect
        self._report = report
        self._reading = threading.Lock()
        self._connection: sqlite3.Connection
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin the check."""
        threading.Thread(target=self._run, name="spool-check", daemon=True).start()

    def end(self) -> None:
        """End the check, done or not."""
        self._ended.set()
        with self.paused():
            pass

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Interrupt the check for the time of the block: the log cannot begin anew while it is read."""
        while not self._reading.acquire(timeout=INTERRUPT_EVERY_S):
            # A check that is only about to begin cannot be interrupted yet, so this is repeated.
            with contextlib.suppress(AttributeError, sqlite3.ProgrammingError):
                self._connection.interrupt()
        try:
            yield
        finally:
            self._reading.release()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._reading, contextlib.closing(self._connect()) as self._connection:
                    cause = check(self._connection)
            except sqlite3.Error as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                    self._ended.wait(CHECK_AGAIN_S)
                    continue
                cause = str(error) if is_damage(error) else ""
            if cause:
                self._report(cause)
            return
