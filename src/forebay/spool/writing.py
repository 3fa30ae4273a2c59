"""What the writer thread does with its connection: each function is one piece of work, most of them a transaction."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

from forebay.model import Address, DeadLetter, Entry, entry_address, join_entries, split_entries
from forebay.spool.codec import BodyCodec
from forebay.spool.records import GroupDamaged, StoredGroup, Totals, Transaction
from forebay.spool.statements import SQL

Work = Callable[[sqlite3.Connection, BodyCodec], object]


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done within, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself has rolled back after some errors (a full disk), and says so if asked again.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def write(connection: sqlite3.Connection, codec: BodyCodec, work: Transaction) -> list[int]:
    """Commit a transaction; return the stored bytes of its inserts, then of its shrinks, in their order."""
    stored: list[int] = []
    with transaction(connection):
        for group in work.inserts:
            row = _pack(codec, group.id, group.entries) | {"attempts": group.attempts, "received_at_ms": now_ms()}
            connection.execute(SQL["insert_group"], row)
            stored.append(row["stored_bytes"])
        for group_id, entries in work.shrinks:
            row = _pack(codec, group_id, entries)
            connection.execute(SQL["shrink_group"], row)
            stored.append(row["stored_bytes"])
        connection.executemany(SQL["delete_group"], ((group_id,) for group_id in work.deletes))
        connection.executemany(SQL["count_attempt"], ((group_id,) for group_id in work.attempts))
        connection.executemany(SQL["bury"], map(_dead_row, work.dead))
    return stored


def load(
    connection: sqlite3.Connection, codec: BodyCodec, after_id: int, held: Container[int], room: tuple[int, int]
) -> list[StoredGroup]:
    """Read the oldest groups behind `after_id` that are not held in memory, as many as there is room for.

    `room` is in events and bytes. The first group is read whatever its size: it may be one large event, and only the
    caller knows whether the channel, empty by then, takes it all the same.

    Raises:
        GroupDamaged: the first group cannot be read; one further on only ends what is read this time.
    """
    events_left, bytes_left = room
    groups: list[StoredGroup] = []
    for group_id, events, body_bytes in connection.execute(SQL["list_groups"], (after_id,)):
        if group_id in held:
            continue
        events_left -= events
        bytes_left -= body_bytes
        if groups and (events_left < 0 or bytes_left < 0):
            break
        try:
            groups.append(_load_group(connection, codec, group_id))
        except ValueError as error:
            if groups:
                break
            raise GroupDamaged(group_id, str(error)) from error
    return groups


def _load_group(connection: sqlite3.Connection, codec: BodyCodec, group_id: int) -> StoredGroup:
    _, kept_as, body, attempts, stored_bytes, received_at_ms = connection.execute(
        SQL["load_group"], (group_id,)
    ).fetchone()
    entries = split_entries(codec.unpack(kept_as, body))
    return StoredGroup(group_id, entries, attempts, stored_bytes, received_at_ms)


def count(connection: sqlite3.Connection, last_id: int) -> Totals:
    """Count the groups up to `last_id`."""
    return Totals(*connection.execute(SQL["count_groups"], (last_id,)).fetchone())


def last_group_id(connection: sqlite3.Connection) -> int:
    """Return the highest number of a group."""
    return int(connection.execute(SQL["last_group"]).fetchone()[0])


def take_requests(connection: sqlite3.Connection, codec: BodyCodec) -> frozenset[str]:
    """Take what other processes asked of the owner."""
    del codec
    names = connection.execute(SQL["take_requests"]).fetchall()
    return frozenset(name for (name,) in names)


REPLAY_BYTES_MAX = 5 * 1024 * 1024
"""How many bytes of dead letters go into one group; some of them died because they were large."""


def replay(connection: sqlite3.Connection, codec: BodyCodec, group_id: int, events_max: int) -> tuple[int, int]:
    """Move dead letters that are marked for it into a new group; return its events and stored bytes.

    The first letter is moved whatever its size.
    """
    bytes_left = REPLAY_BYTES_MAX
    moved: list[int] = []
    entries: list[Entry] = []
    with transaction(connection):
        for dead_id, entry in connection.execute(SQL["marked_dead"], (events_max,)):
            bytes_left -= len(entry)
            if entries and bytes_left < 0:
                break
            moved.append(dead_id)
            entries.append(entry)
        if not entries:
            return 0, 0
        row = _pack(codec, group_id, entries)
        connection.execute(SQL["insert_group"], row | {"attempts": 0, "received_at_ms": now_ms()})
        connection.executemany(SQL["delete_dead"], ((dead_id,) for dead_id in moved))
    return len(entries), row["stored_bytes"]


VACUUM_PAGES_MAX = 1000


def clean_up(connection: sqlite3.Connection, codec: BodyCodec, died_before_ms: int, dead_max: int) -> tuple[int, bool]:
    """Delete some dead letters past their retention and give free pages back.

    Bounded in both, so that no commit waits long behind it.

    Returns:
        How many dead letters went, and whether there is more to do.
    """
    del codec
    with transaction(connection):
        gone = connection.execute(SQL["expire_dead"], (died_before_ms, dead_max)).rowcount
    free = _count_free_pages(connection)
    # Not `execute`, which takes the first step of this pragma only and so frees one page.
    connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})")
    freed = free - _count_free_pages(connection)
    return gone, gone == dead_max or freed >= VACUUM_PAGES_MAX


def _count_free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _pack(codec: BodyCodec, group_id: int, entries: Sequence[Entry]) -> dict[str, Any]:
    body = join_entries(entries)
    kept_as, kept = codec.pack(body)
    return {
        "id": group_id,
        "events": len(entries),
        "body_bytes": len(body),
        "stored_bytes": len(kept),
        "codec": int(kept_as),
        "body": kept,
    }


def _address(entry: Entry) -> Address:
    try:
        return entry_address(entry)
    except ValueError:
        # Damaged: it must not keep what is settled with it from being committed, again and again.
        return Address("", hashlib.sha256(entry).hexdigest())


def _dead_row(letter: DeadLetter) -> dict[str, Any]:
    address = _address(letter.entry)
    return {
        "index_name": address.index,
        "log_id": address.log_id,
        "error_type": letter.error_type,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "died_at_ms": letter.died_at_ms,
        "entry": letter.entry,
    }
