"""Spools that have lost their owner, since there are fewer workers than last time.

A worker that is there takes over what is in them, row by row as it stands: bytes, history and time of receipt stay, the
order among them too. A row is kept in the adopter's spool before it leaves the orphan. A crash in between leaves it in
both, and is no worse than that: the sink takes each event once.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from forebay.clock import now_ms
from forebay.errors import SpoolUnusable
from forebay.spool.beside.requests import Request
from forebay.spool.files import SpoolFiles, closed_on_failure, find_spools
from forebay.spool.lock import OwnerLock
from forebay.spool.opening import open_spool
from forebay.spool.reserve import Reserve
from forebay.spool.statements import SQL
from forebay.spool.store import Store

ROWS_MAX = 500
STORED_BYTES_MAX = 1024 * 1024
"""How much is moved at once: what a commit of events is at the most, more or less, as commits wait while it is written.

The first row is moved whatever its size.
"""

Row = dict[str, Any]


class Portion(NamedTuple):
    """Rows that are moved at once, or, when all of them have been moved, what commands have asked of the orphan."""

    groups: list[Row]
    letters: list[Row]
    requests: list[tuple[str, int]]

    @property
    def events(self) -> int:
        """Return how many events the groups hold."""
        return sum(row["events"] for row in self.groups)

    @property
    def stored_bytes(self) -> int:
        """Return what they take on disk."""
        return sum(row["stored_bytes"] for row in self.groups)


def find_orphans(path: Path, slot: int, workers: int) -> list[Path]:
    """Return the spools that the worker of a slot is to take over: each orphan falls to one worker."""
    # Of one whose database was removed its log may hold everything.
    spools = find_spools(path) | find_spools(path, end="-wal")
    return [spools[orphan] for orphan in spools if orphan > workers and (orphan - 1) % workers == slot - 1]


class Orphan:
    """The hold on a spool that is to be emptied. Each call may take as long as the disk does.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        """Become its owner.

        Raises:
            SpoolUnusable: it belongs to somebody after all, cannot be saved, or was written by a newer Forebay.
        """
        self.path = path
        self._files = SpoolFiles(path)
        self._lock = OwnerLock(self._files)
        with closed_on_failure(self._lock):
            # One that is damaged is saved first, as at the start of its owner.
            self._opened = open_spool(self._files, self._lock, Reserve(self._files.reserve))
        self._connection = self._opened.store.connection

    def take(self) -> Portion | None:
        """Read what is moved next, or None if nothing is left.

        From here to `let_go` no command marks, deletes or asks anything here: it would be lost with the rows.

        Raises:
            SpoolUnusable: it cannot be read.
        """
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            groups = self._read("oldest_groups", "stored_bytes")
            letters = [] if groups else self._read("oldest_letters", "letter_bytes")
            # Last, so that the adopter does what they ask to all of these rows.
            requests = [] if groups or letters else self._connection.execute(SQL["list_requests"]).fetchall()
            if groups or letters or requests:
                return Portion(groups, letters, requests)
            self._connection.execute("ROLLBACK")
            return None

    def let_go(self, portion: Portion) -> None:
        """Delete what has been kept elsewhere; what failed may be tried again.

        Raises:
            SpoolUnusable: it cannot be written.
        """
        with self._explained():
            # SQLite ends a transaction by itself after some errors (a full disk).
            if not self._connection.in_transaction:
                self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(SQL["delete_group"], [(row["id"],) for row in portion.groups])
            self._connection.executemany(SQL["delete_dead"], [(row["id"],) for row in portion.letters])
            self._connection.executemany(SQL["forget_request"], [(name,) for name, _ in portion.requests])
            self._connection.execute("COMMIT")

    def remove(self) -> None:
        """Remove the file of an orphan that is empty.

        Raises:
            SpoolUnusable: it cannot be removed.
        """
        # SQLite removes its log with the last connection; a command that looks at the file right now keeps it.
        self._connection.close()
        files = self._files
        try:
            # The lock last, and while it is still held: `lock` sees to it that nobody takes hold of one that is gone.
            for leftover in (self.path, files.database, files.wal, files.shm, files.reserve, files.lock):
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise SpoolUnusable(f"DATABASE_URL: {self.path} is empty and cannot be removed: {error}") from error

    def close(self) -> None:
        """Give it up; what was taken and not let go of stays. Doing it again does nothing."""
        self._lock.note_closed()
        self._connection.close()
        self._opened.wal.close()
        self._lock.close()

    def _read(self, statement: str, size: str) -> list[Row]:
        rows: list[Row] = []
        bytes_left = STORED_BYTES_MAX
        cursor = self._connection.execute(SQL[statement], (ROWS_MAX,))
        names = [column[0] for column in cursor.description]
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            bytes_left -= row[size]
            if rows and bytes_left < 0:
                break
            rows.append(row)
        cursor.close()
        return rows

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SpoolUnusable(f"DATABASE_URL: {self.path} cannot be emptied: {error}") from error


def keep(store: Store, portion: Portion, first_id: int) -> None:
    """Keep rows of an orphan in another spool; its groups get numbers from `first_id`."""
    connection = store.connection
    with store.transaction():
        for number, row in enumerate(portion.groups, first_id):
            connection.execute(SQL["insert_group"], row | {"id": number})
        connection.executemany(SQL["save_letter"], portion.letters)
        connection.executemany(SQL["ask"], portion.requests)
        # A command that marked them may find their file gone when it comes to ask.
        if any(row["replay"] for row in portion.letters):
            connection.execute(SQL["ask"], (Request.REPLAY.value, now_ms()))
