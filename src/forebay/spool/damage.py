"""What tells that a spool's file is damaged: cheap signs when it is opened, SQLite's own check later."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from urllib.parse import quote

from forebay.spool import wal
from forebay.spool.codec import BodyCodec
from forebay.spool.pages import PAGE_BYTES, open_pages
from forebay.spool.salvage import Group, verify
from forebay.spool.trees import read_rows

_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PRIMARY = 0xFF

UNSYNCED_COMMITS_MAX = 1
"""How many commits at the end of a log may be broken without damage: one was being written when the power went."""

NICENESS = 19


def is_damage(error: BaseException | None) -> bool:
    """Return whether SQLite said that the file is not as it left it."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & _PRIMARY in _CODES


def find_before_opening(path: Path, *, was_opened: bool) -> str:
    """Return what is wrong that SQLite would not tell of, or would make worse by opening the file; empty where nothing.

    SQLite deletes a log beside an empty database, and takes one whose first bytes are damaged for an empty log.
    """
    place = path.resolve()
    entries = _read_log(place)
    commits = bool(wal.list_commits(entries))
    if not place.exists() or not place.stat().st_size:
        if commits:
            return "the file is empty, and its log is not"
        return "the file is empty, and was not when it was last opened" if was_opened and place.exists() else ""
    return "the first bytes of its log are damaged" if commits and not wal.is_header_whole(entries) else ""


def find_in_log(connection: sqlite3.Connection, path: Path) -> str:
    """Return what is wrong with the log of a file that was just opened, empty where nothing.

    SQLite reads the log up to the first damaged frame and forgets what is behind it.
    """
    place = path.resolve()
    commits = wal.list_commits(_read_log(place))
    if not commits:
        return ""
    _, frames, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if sum(number > frames for number in commits) > UNSYNCED_COMMITS_MAX:
        return f"its log is damaged behind frame {frames} of {commits[-1]}"
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if frames == done and place.stat().st_size < pages * PAGE_BYTES:
        return f"the file is cut short: it has {place.stat().st_size} bytes, and {pages} pages"
    return ""


def holds_events(path: Path) -> bool:
    """Return whether there is anything in a file that only a spool holds, though SQLite cannot read it."""
    codec = BodyCodec()
    with open_pages(path, Path(f"{path}-wal")) as pages:
        return any(isinstance(verify(row, codec), Group) for row in read_rows(pages))


def check(connection: sqlite3.Connection) -> str:
    """Look through the whole file; return what is wrong first, empty where nothing is.

    It takes as long as reading the file does, and the thread gives way to all others meanwhile.
    """
    # On Linux a thread has a niceness of its own.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if result == "ok" else " ".join(str(result).split())


def connect_to_check(path: Path) -> sqlite3.Connection:
    """Open the file for `check`, beside its owner's connection."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)


def _read_log(place: Path) -> bytes:
    try:
        return Path(f"{place}-wal").read_bytes()
    except FileNotFoundError:
        return b""
