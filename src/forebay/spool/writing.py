"""What the writer thread does with its connection: each function is one piece of work, most of them a transaction."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

from forebay.model import DeadLetter, Entry, entry_address, join_entries, split_entries
from forebay.spool.codec import BodyCodec
from forebay.spool.records import StoredGroup, Totals, Transaction
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
        groups.append(_load_group(connection, codec, group_id))
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


def replay(connection: sqlite3.Connection, codec: BodyCodec, group_id: int, events_max: int) -> tuple[int, int]:
    """Move dead letters that are marked for it into a new group; return its events and stored bytes."""
    with transaction(connection):
        marked = connection.execute(SQL["marked_dead"], (events_max,)).fetchall()
        if not marked:
            return 0, 0
        row = _pack(codec, group_id, [entry for _, entry in marked])
        connection.execute(SQL["insert_group"], row | {"attempts": 0, "received_at_ms": now_ms()})
        connection.executemany(SQL["delete_dead"], ((dead_id,) for dead_id, _ in marked))
    return len(marked), row["stored_bytes"]


def clean_up(connection: sqlite3.Connection, codec: BodyCodec, died_before_ms: int, dead_max: int) -> int:
    """Delete some dead letters past their retention and give free pages back; return how many went.

    Bounded in both, so that no commit waits long behind it.
    """
    del codec
    with transaction(connection):
        gone = connection.execute(SQL["expire_dead"], (died_before_ms, dead_max)).rowcount
    # The pragma frees one page for every row that is fetched.
    connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})").fetchall()
    return gone


VACUUM_PAGES_MAX = 1000


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


def _dead_row(letter: DeadLetter) -> dict[str, Any]:
    address = entry_address(letter.entry)
    return {
        "index_name": address.index,
        "log_id": address.log_id,
        "error_type": letter.error_type,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "died_at_ms": letter.died_at_ms,
        "entry": letter.entry,
    }
