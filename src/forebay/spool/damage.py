"""Damage to a spool's file: SQLite says that there is any, and nobody else."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading

_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PRIMARY = 0xFF

NICENESS = 19


def is_damage(error: BaseException | None) -> bool:
    """Return whether SQLite said that the file is not as it left it."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & _PRIMARY in _CODES


def check(connection: sqlite3.Connection) -> str:
    """Look through the whole file; return the first thing that is wrong, empty if nothing is.

    It takes as long as reading the file does, and the thread gives way to all others meanwhile.
    """
    # On Linux a thread has a niceness of its own.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if result == "ok" else " ".join(str(result).split())
