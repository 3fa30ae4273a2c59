"""The store: one connection to the database, and the reads and writes of its owner."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from forebay.clock import now_ms
from forebay.history import DeadLetter, History
from forebay.model import Entry
from forebay.spool.codec import GroupCodec, dead_address, history_columns, read_history
from forebay.spool.records import NewGroup, StoredGroup, Totals, Transaction
from forebay.spool.statements import SQL

VACUUM_PAGES_MAX = 2000


class Store:
    """A connection and its codec, for one thread at a time. Each method may take as long as the disk does.

    Attributes:
        connection: for the SQL of other modules.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._codec = GroupCodec()

    def close(self) -> None:
        """Close the connection; doing it again does nothing."""
        self.connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all work of the block, or none if it fails."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            # After some errors (a full disk) SQLite has rolled back itself, and would fail if asked again.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def write(self, work: Transaction) -> dict[int, int]:
        """Commit a transaction; return the stored bytes of its inserts and shrinks by the number of the row."""
        stored_bytes: dict[int, int] = {}
        received_at_ms = now_ms()
        with self.transaction():
            for group in work.inserts:
                stored_bytes[group.id] = self.insert(group, received_at_ms)
            for group_id, entries, history in work.shrinks:
                row = self._columns(group_id, entries, history)
                self.connection.execute(SQL["shrink_group"], row)
                stored_bytes[group_id] = row["stored_bytes"]
            self._delete(work.deletes)
            self.connection.executemany(
                SQL["note_attempt"],
                ({"id": group_id} | history_columns(history) for group_id, history in work.attempts),
            )
            for letter in work.dead:
                self._bury(letter)
        return stored_bytes

    def insert(self, group: NewGroup, received_at_ms: int) -> int:
        """Store a group, within a transaction; return its stored bytes."""
        row = self._columns(group.id, group.entries, group.history)
        self.connection.execute(SQL["insert_group"], row | {"received_at_ms": group.received_at_ms or received_at_ms})
        return int(row["stored_bytes"])

    def take_back(self, group_ids: Iterable[int]) -> None:
        """Delete groups that were committed and must not be there."""
        with self.transaction():
            self._delete(group_ids)

    def read_group(self, group_id: int) -> StoredGroup:
        """Read a group that is there.

        Raises:
            ValueError: it is damaged.
        """
        return self._codec.read_group(self.connection.execute(SQL["load_group"], (group_id,)).fetchone())

    def read_totals(self) -> Totals:
        """Return the totals, without counting."""
        return Totals(*self.connection.execute(SQL["totals"]).fetchone())

    def last_group_id(self) -> int:
        """Return the highest number of a group."""
        return int(self.connection.execute(SQL["last_group"]).fetchone()[0])

    def report(self, kind: str, detail: str) -> None:
        """Store an incident."""
        self.connection.execute(SQL["report"], {"at_ms": now_ms(), "kind": kind, "detail": detail})

    def report_once(self, kind: str, detail: str) -> None:
        """Store an incident, unless the same one is stored already."""
        self.connection.execute(SQL["report_once"], {"at_ms": now_ms(), "kind": kind, "detail": detail})

    def vacuum(self) -> bool:
        """Give some free pages back to the file system; return whether there may be more."""
        free = self._count_free_pages()
        # Not `execute`: it takes only the first step of this pragma, which frees one page.
        self.connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})")
        return free - self._count_free_pages() >= VACUUM_PAGES_MAX

    def write_log_back(self) -> bool:
        """Write the log back to the file, so that the log can begin anew; return whether that worked."""
        # A checkpoint that fails commits nothing, and the next one does all of it again.
        try:
            (is_busy, _, _) = self.connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        except sqlite3.Error:
            return False
        return not is_busy

    def empty_log(self) -> bool:
        """Write the log back to the file and cut it off; return whether that worked.

        It waits for readers of the log as long as for any lock.

        Raises:
            sqlite3.Error: the disk failed.
        """
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        (is_busy, _, _) = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not is_busy

    def _columns(self, group_id: int, entries: Sequence[Entry], history: History) -> dict[str, Any]:
        return {"id": group_id} | self._codec.body_columns(entries) | history_columns(history)

    def _delete(self, group_ids: Iterable[int]) -> None:
        self.connection.executemany(SQL["delete_group"], ((group_id,) for group_id in group_ids))

    def _bury(self, letter: DeadLetter) -> None:
        address = dead_address(letter.entry)
        key = {"index_name": address.index, "log_id": address.log_id}
        before = self.connection.execute(SQL["dead_history"], key).fetchone()
        history = letter.history
        if before:
            # Damaged times must not make each commit fail that settles this event.
            with contextlib.suppress(ValueError):
                history = read_history(*before).followed_by(history)
        row = key | {
            "error_type": letter.error_type,
            "reason": letter.reason,
            "died_at_ms": letter.died_at_ms,
            "entry": letter.entry,
        }
        self.connection.execute(SQL["bury"], row | history_columns(history))

    def _count_free_pages(self) -> int:
        return int(self.connection.execute("PRAGMA freelist_count").fetchone()[0])
