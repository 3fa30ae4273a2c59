"""The store: one connection to the database, and all that its owner reads and writes through it."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from forebay.clock import now_ms
from forebay.model import DeadLetter, Entry, History
from forebay.spool.codec import GroupCodec, dead_address, history_columns, read_history
from forebay.spool.records import GroupDamaged, StoredGroup, Totals, Transaction, Wanted
from forebay.spool.reserve import unless_full
from forebay.spool.statements import SQL

REPLAY_BYTES_MAX = 5 * 1024 * 1024
"""The most bytes of dead letters in one group; some of them died because they were large."""

VACUUM_PAGES_MAX = 1000

KIND = ("index_name", "refused_status")


class Store:
    """A connection and its codec, in one thread at a time. Each method may take as long as the disk does.

    Attributes:
        connection: for SQL of other rooms.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._codec = GroupCodec()

    def close(self) -> None:
        """Close the connection; doing it again does nothing."""
        self.connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the work of the block, or nothing of it."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            # SQLite itself has rolled back after some errors (a full disk), and fails if asked again.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody else from writing during the block, which writes nothing through SQLite."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            self.connection.execute("ROLLBACK")

    def write(self, work: Transaction) -> dict[int, int]:
        """Commit a transaction; return the stored bytes of its inserts and shrinks by the number of the row."""
        stored_bytes: dict[int, int] = {}
        received_at_ms = now_ms()
        with self.transaction():
            for group in work.inserts:
                row = self._columns(group.id, group.entries, group.history)
                row |= {"received_at_ms": group.received_at_ms or received_at_ms}
                self.connection.execute(SQL["insert_group"], row)
                stored_bytes[group.id] = row["stored_bytes"]
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

    def take_back(self, group_ids: Iterable[int]) -> None:
        """Delete groups that were committed and must not be there."""
        with self.transaction():
            self._delete(group_ids)

    def load(
        self, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], wanted: Wanted
    ) -> list[StoredGroup]:
        """Read the oldest wanted groups behind `after_id` that are not left out, as many as there is room for.

        `room` is in events and bytes. The first group is read whatever its size: it may be one large event, and only
        the caller knows whether the channel, empty by then, takes it all the same.

        Raises:
            GroupDamaged: the first group cannot be read; one further on only ends the list.
        """
        kinds = [kind for kind in self._list_kinds() if wanted.includes(*kind)]
        rows = heapq.merge(*(self.connection.execute(SQL["list_groups"], (*kind, after_id)) for kind in kinds))
        groups: list[StoredGroup] = []
        # Closed here: an error would keep them for as long as anybody has it, and with them a part of the log.
        with contextlib.closing(rows):
            for group_id in _fit(rows, left_out, room):
                try:
                    groups.append(self._load_group(group_id))
                except ValueError as error:
                    if groups:
                        break
                    damaged = GroupDamaged(group_id, str(error))
                    self._report_once("group_damaged", str(damaged))
                    raise damaged from error
        return groups

    def load_trial(
        self, index: str, after_id: int, left_out: AbstractSet[int], room: tuple[int, int]
    ) -> list[StoredGroup]:
        """Read groups of an index: never refused ones, newest and oldest by turns, then refused ones.

        Of the refused ones those behind `after_id`, oldest first. Damaged groups are left out too.
        """
        newest = self.connection.execute(SQL["list_newest_groups"], (index, 0))
        oldest = self.connection.execute(SQL["list_groups"], (index, 0, 0))
        statuses = [status for name, status in self._list_kinds() if name == index and status]
        refused = heapq.merge(
            *(self.connection.execute(SQL["list_groups"], (index, status, after_id)) for status in statuses)
        )
        by_turns = (row for pair in zip(newest, oldest, strict=False) for row in pair)
        groups: list[StoredGroup] = []
        for group_id in _fit(itertools.chain(by_turns, refused), left_out, room):
            with contextlib.suppress(ValueError):
                groups.append(self._load_group(group_id))
        return groups

    def read_totals(self) -> Totals:
        """Return the totals, without counting."""
        return Totals(*self.connection.execute(SQL["totals"]).fetchone())

    def last_group_id(self) -> int:
        """Return the highest number of a group."""
        return int(self.connection.execute(SQL["last_group"]).fetchone()[0])

    def take_requests(self) -> frozenset[str]:
        """Take the requests of commands, but for burials."""
        names = self.connection.execute(SQL["take_requests"]).fetchall()
        return frozenset(name for (name,) in names)

    def list_burials(self) -> list[str]:
        """Return the requests for burials; each stays until it is forgotten."""
        return [name for (name,) in self.connection.execute(SQL["list_burials"])]

    def forget_request(self, name: str) -> None:
        """Delete a request that is done."""
        self.connection.execute(SQL["forget_request"], (name,))

    def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        """Move dead letters that are requested for replay into a new group; return its events and stored bytes.

        The first letter is moved whatever its size.
        """
        bytes_left = REPLAY_BYTES_MAX
        moved: list[int] = []
        entries: list[Entry] = []
        with self.transaction():
            for dead_id, entry in self.connection.execute(SQL["list_replays"], (events_max,)):
                bytes_left -= len(entry)
                if entries and bytes_left < 0:
                    break
                moved.append(dead_id)
                entries.append(entry)
            if not entries:
                return 0, 0
            row = self._columns(group_id, entries, History())
            self.connection.execute(SQL["insert_group"], row | {"received_at_ms": now_ms()})
            self.connection.executemany(SQL["delete_dead"], ((dead_id,) for dead_id in moved))
        return len(entries), row["stored_bytes"]

    def report(self, kind: str, detail: str) -> None:
        """Store an incident."""
        self.connection.execute(SQL["report"], {"at_ms": now_ms(), "kind": kind, "detail": detail})

    def vacuum(self) -> bool:
        """Give some free pages back to the file system; return whether there may be more."""
        free = self._count_free_pages()
        # Not `execute`, which takes the first step of this pragma only and so frees one page.
        self.connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})")
        return free - self._count_free_pages() >= VACUUM_PAGES_MAX

    def write_log_back(self) -> bool:
        """Write the log back to the file, so that it can begin anew in its room; return whether that worked."""
        # A checkpoint that fails commits nothing, and the next one begins where it began.
        try:
            (is_busy, _, _) = self.connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        except sqlite3.Error:
            return False
        return not is_busy

    def empty_log(self) -> bool:
        """Write the log back to the file and cut it off; return whether that worked.

        It waits for readers of the log, as long as for any lock.

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
            # Damaged times must not keep events that are settled with it from being committed, again and again.
            with contextlib.suppress(ValueError):
                history = read_history(*before).followed_by(history)
        row = key | {
            "error_type": letter.error_type,
            "reason": letter.reason,
            "died_at_ms": letter.died_at_ms,
            "entry": letter.entry,
        }
        self.connection.execute(SQL["bury"], row | history_columns(history))

    def _load_group(self, group_id: int) -> StoredGroup:
        return self._codec.read_group(self.connection.execute(SQL["load_group"], (group_id,)).fetchone())

    def _list_kinds(self) -> Iterator[tuple[str, int]]:
        """Go through the pairs of an index and a status of refusal that there are groups of."""
        kind = ("", -1)
        while found := self.connection.execute(SQL["next_kind"], dict(zip(KIND, kind, strict=True))).fetchone():
            kind = found
            yield kind

    def _report_once(self, kind: str, detail: str) -> None:
        """Store an incident that is met again and again."""
        # That the disk is full must not hide the incident from the caller.
        with unless_full():
            self.connection.execute(SQL["report_once"], {"at_ms": now_ms(), "kind": kind, "detail": detail})

    def _count_free_pages(self) -> int:
        return int(self.connection.execute("PRAGMA freelist_count").fetchone()[0])


def _fit(rows: Iterable[tuple[int, int, int]], left_out: AbstractSet[int], room: tuple[int, int]) -> Iterator[int]:
    """Choose groups (number, events, bytes) that are not left out, each once, while there is room; the first always."""
    events_left, bytes_left = room
    chosen: set[int] = set()
    for group_id, events, body_bytes in rows:
        if group_id in left_out or group_id in chosen:
            continue
        events_left -= events
        bytes_left -= body_bytes
        if chosen and (events_left < 0 or bytes_left < 0):
            return
        chosen.add(group_id)
        yield group_id
