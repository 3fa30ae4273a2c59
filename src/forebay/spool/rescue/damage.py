"""Damage to a spool's file. SQLite alone decides that there is any; a marker file shows it to the next start."""

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
    """Return whether SQLite said that the file is not as it left it."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & _PRIMARY in _CODES


def leave_marker(files: SpoolFiles, cause: str) -> None:
    """Leave a marker that the spool is damaged, which the next start finds."""
    if not files.damage_marker.exists():
        write_synced(files.damage_marker, f"\n{cause}\n")


def check(connection: sqlite3.Connection) -> str:
    """Check the whole file; return the first problem, empty if there is none.

    It takes as long as reading the file does, and the thread gives way to all others meanwhile.
    """
    # On Linux a thread has a niceness of its own.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if result == "ok" else " ".join(str(result).split())


class Checker:
    """A thread that checks the whole file once, beside the work on it."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], report: Callable[[str], None]) -> None:
        """`connect` opens the file for reading alone; `report` is called, in the thread, with the first problem."""
        self._connect = connect
        self._report = report
        self._reading = threading.Lock()
        self._connection: sqlite3.Connection
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="spool-check", daemon=True).start()

    def end(self) -> None:
        """End, at the end of the file or before."""
        self._ended.set()
        with self.paused():
            pass

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Interrupt the check during the block: the log cannot begin anew beside a reader."""
        while not self._reading.acquire(timeout=INTERRUPT_EVERY_S):
            # A check that has not begun yet cannot be interrupted, so this goes on until it ends.
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
