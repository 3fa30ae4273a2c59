"""Removes a spool that is empty and that nobody will own any more."""

from __future__ import annotations

import contextlib
from pathlib import Path

from forebay.errors import SpoolUnusable
from forebay.spool.beside.inspection import inspect
from forebay.spool.files import SpoolFiles
from forebay.spool.lock import OwnerLock


def remove_if_empty(path: Path) -> None:
    """Remove the files of a spool, unless it holds events, dead letters or requests.

    A command may leave a request meanwhile. It is about no event, so nothing is lost.

    Raises:
        SpoolUnusable: somebody owns it, it cannot be read, or its files cannot be removed.
        SpoolError: SQLite failed.
    """
    files = SpoolFiles(path)
    with contextlib.closing(OwnerLock(files)):
        with inspect(path) as spool:
            if spool.summarize().totals.dead_letters or spool.has_work(died_before_ms=0):
                return
        try:
            # The lock goes last, while it is still locked: `OwnerLock` then finds it gone, and makes a new one.
            for file in (path, *files.of_sqlite, files.reserve, files.lock):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise SpoolUnusable(f"DATABASE_URL: {path} is empty and cannot be removed: {error}") from error
