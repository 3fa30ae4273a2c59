"""What the writer thread does with its connection: each function is one piece of work, most of them a transaction."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from forebay.clock import now_ms
from forebay.model import Address, DeadLetter, Entry, History, entry_address, entry_index, join_entries, split_entries
from forebay.spool.codec import BodyCodec
from forebay.spool.records import ExpiredLetter, GroupDamaged, StoredGroup, Totals, Transaction, Wanted
from forebay.spool.reserve import is_disk_full
from forebay.spool.statements import SQL

_encode_times = msgspec.json.Encoder().encode
_decode_times = msgspec.json.Decoder(tuple[int, ...]).decode

Work = Callable[[sqlite3.Connection, BodyCodec], object]


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


def write(connection: sqlite3.Connection, codec: BodyCodec, work: Transaction) -> dict[int, int]:
    """Commit a transaction; return the stored bytes of its inserts and shrinks by the number of the row."""
    stored_bytes: dict[int, int] = {}
    received_at_ms = now_ms()
    with transaction(connection):
        for group in work.inserts:
            row = _pack(codec, group.id, group.entries, group.history)
            connection.execute(SQL["insert_group"], row | {"received_at_ms": group.received_at_ms or received_at_ms})
            stored_bytes[group.id] = row["stored_bytes"]
        for group_id, entries, history in work.shrinks:
            row = _pack(codec, group_id, entries, history)
            connection.execute(SQL["shrink_group"], row)
            stored_bytes[group_id] = row["stored_bytes"]
        connection.executemany(SQL["delete_group"], ((group_id,) for group_id in work.deletes))
        connection.executemany(
            SQL["note_attempt"], ({"id": group_id} | _history_row(history) for group_id, history in work.attempts)
        )
        for letter in work.dead:
            _bury(connection, letter)
    return stored_bytes


def load(
    connection: sqlite3.Connection,
    codec: BodyCodec,
    after_id: int,
    left_out: AbstractSet[int],
    room: tuple[int, int],
    wanted: Wanted,
) -> list[StoredGroup]:
    """Read the oldest wanted groups behind `after_id` that are not left out, as many as there is room for.

    `room` is in events and bytes. The first group is read whatever its size: it may be one large event, and only the
    caller knows whether the channel, empty by then, takes it all the same.

    Raises:
        GroupDamaged: the first group cannot be read; one further on only ends what is read this time.
    """
    kinds = [kind for kind in _list_kinds(connection) if wanted.includes(*kind)]
    rows = heapq.merge(*(connection.execute(SQL["list_groups"], (*kind, after_id)) for kind in kinds))
    groups: list[StoredGroup] = []
    # Closed here: an error keeps them as long as anybody has it, and with them what they read of the log.
    with contextlib.closing(rows):
        for group_id in _fit(rows, left_out, room):
            try:
                groups.append(_load_group(connection, codec, group_id))
            except ValueError as error:
                if groups:
                    break
                damaged = GroupDamaged(group_id, str(error))
                _report_once(connection, "group_damaged", str(damaged))
                raise damaged from error
    return groups


def load_trial(
    connection: sqlite3.Connection,
    codec: BodyCodec,
    index: str,
    after_id: int,
    left_out: AbstractSet[int],
    room: tuple[int, int],
) -> list[StoredGroup]:
    """Read groups of an index that are not left out: never refused ones, newest and oldest by turns, then refused ones.

    Of the latter those behind `after_id`, oldest first. What cannot be read is left out.
    """
    newest = connection.execute(SQL["list_newest_groups"], (index, 0))
    oldest = connection.execute(SQL["list_groups"], (index, 0, 0))
    statuses = [status for name, status in _list_kinds(connection) if name == index and status]
    refused = heapq.merge(*(connection.execute(SQL["list_groups"], (index, status, after_id)) for status in statuses))
    by_turns = (row for pair in zip(newest, oldest, strict=False) for row in pair)
    groups: list[StoredGroup] = []
    for group_id in _fit(itertools.chain(by_turns, refused), left_out, room):
        with contextlib.suppress(ValueError):
            groups.append(_load_group(connection, codec, group_id))
    return groups


KIND = ("index_name", "refused_status")


def _list_kinds(connection: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    """Go through the pairs of an index and a status of refusal that there are groups of."""
    kind = ("", -1)
    while found := connection.execute(SQL["next_kind"], dict(zip(KIND, kind, strict=True))).fetchone():
        kind = found
        yield kind


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


def _report_once(connection: sqlite3.Connection, kind: str, detail: str) -> None:
    """Remember an incident that is met again and again."""
    # That the disk is full must not hide the incident from who met it.
    with unless_full():
        connection.execute(SQL["report_once"], {"at_ms": now_ms(), "kind": kind, "detail": detail})


def _load_group(connection: sqlite3.Connection, codec: BodyCodec, group_id: int) -> StoredGroup:
    return read_group(codec, connection.execute(SQL["load_group"], (group_id,)).fetchone())


def read_group(codec: BodyCodec, row: Sequence[Any]) -> StoredGroup:
    """Return the group of a row.

    Raises:
        ValueError: the row is damaged.
    """
    group_id, kept_as, body, stored_bytes, received_at_ms, index, *history = row
    entries = split_entries(codec.unpack(kept_as, body))
    return StoredGroup(group_id, index, entries, read_history(*history), stored_bytes, received_at_ms)


def read_history(
    attempts: int, attempted_at_ms: str, strikes: int = 0, refusals: int = 0, refused_status: int = 0
) -> History:
    """Return the history that a row holds.

    Raises:
        ValueError: the times are damaged.
    """
    return History(attempts, _decode_times(attempted_at_ms), strikes, refusals, refused_status)


def read_totals(connection: sqlite3.Connection) -> Totals:
    """Return how much the spool holds, without counting."""
    return Totals(*connection.execute(SQL["totals"]).fetchone())


def last_group_id(connection: sqlite3.Connection) -> int:
    """Return the highest number of a group."""
    return int(connection.execute(SQL["last_group"]).fetchone()[0])


def write_log_back(connection: sqlite3.Connection) -> bool:
    """Write the log back to the file, so that it can begin anew in its room; return whether all of it was written."""
    # A checkpoint that fails commits nothing, and the next one begins where it began.
    try:
        (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    except sqlite3.Error:
        return False
    return not is_busy


def empty_log(connection: sqlite3.Connection) -> bool:
    """Write the log back to the file and cut it off; return whether that was possible.

    It waits for whoever reads from the log, as long as for any lock.

    Raises:
        sqlite3.Error: the disk failed.
    """
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy


def take_back(connection: sqlite3.Connection, group_ids: Iterable[int]) -> None:
    """Delete groups that were committed and must not be there."""
    with transaction(connection):
        connection.executemany(SQL["delete_group"], ((group_id,) for group_id in group_ids))


@contextlib.contextmanager
def unless_full() -> Iterator[None]:
    """Leave undone what a full disk has no room for."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if not is_disk_full(error):
            raise


def take_requests(connection: sqlite3.Connection, codec: BodyCodec) -> tuple[frozenset[str], int]:
    """Take what other processes asked of the owner, but for burials.

    Return it, and the bytes of the dead letters that they left.
    """
    del codec
    names = connection.execute(SQL["take_requests"]).fetchall()
    return frozenset(name for (name,) in names), read_totals(connection).dead_bytes


def list_burials(connection: sqlite3.Connection, codec: BodyCodec) -> list[str]:
    """Return the requests of other processes that events be buried; each stays until it is forgotten."""
    del codec
    return [name for (name,) in connection.execute(SQL["list_burials"])]


def forget_request(connection: sqlite3.Connection, codec: BodyCodec, name: str) -> None:
    """Let go of a request that has been done."""
    del codec
    connection.execute(SQL["forget_request"], (name,))


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
        row = _pack(codec, group_id, entries, History())
        connection.execute(SQL["insert_group"], row | {"received_at_ms": now_ms()})
        connection.executemany(SQL["delete_dead"], ((dead_id,) for dead_id in moved))
    return len(entries), row["stored_bytes"]


VACUUM_PAGES_MAX = 1000


EXPIRED_BYTES_MAX = 1024 * 1024
"""How many bytes of dead letters are read, and deleted, at once; commits wait meanwhile."""


def list_expired(
    connection: sqlite3.Connection, codec: BodyCodec, died_before_ms: int, letters_max: int
) -> list[ExpiredLetter]:
    """Read some dead letters that are past their retention; the first whatever its size."""
    del codec
    bytes_left = EXPIRED_BYTES_MAX
    letters: list[ExpiredLetter] = []
    with contextlib.closing(connection.execute(SQL["list_expired"], (died_before_ms, letters_max))) as rows:
        for letter_id, index_name, log_id, error_type, reason, died_at_ms, entry, *times in rows:
            bytes_left -= len(entry) + len(reason.encode())
            if letters and bytes_left < 0:
                break
            names = (letter_id, index_name, log_id, error_type, reason)
            letters.append(ExpiredLetter(*names, read_history(*times), died_at_ms, entry))
    return letters


def expire(connection: sqlite3.Connection, codec: BodyCodec, letter_ids: Sequence[int], died_before_ms: int) -> int:
    """Delete dead letters that are still past their retention; return how many went."""
    del codec
    with transaction(connection):
        parameters = ((letter_id, died_before_ms) for letter_id in letter_ids)
        return connection.executemany(SQL["expire_dead"], parameters).rowcount


CLOCK_BUCKET_MS = 600_000
CLOCK_BUCKETS_A_DAY = 86_400_000 // CLOCK_BUCKET_MS


def note_clock(connection: sqlite3.Connection, codec: BodyCodec, ran_ms: int, clock_ms: int) -> int | None:
    """Add to the running time, and remember the clock.

    Return the lowest that the clock has shown for a whole day of running time, or None before there was one.
    """
    del codec
    with transaction(connection):
        ran_ms += connection.execute(SQL["running_time"]).fetchone()[0]
        bucket = ran_ms // CLOCK_BUCKET_MS
        connection.execute(SQL["note_clock"], {"bucket": bucket, "ran_ms": ran_ms, "clock_ms": clock_ms})
        # The newest one whose end lies a day back: so nothing in it is younger.
        day_ago = bucket - CLOCK_BUCKETS_A_DAY - 1
        connection.execute(SQL["forget_clock"], (day_ago,))
        lowest_ms, first_bucket = connection.execute(SQL["lowest_clock"]).fetchone()
    return int(lowest_ms) if first_bucket <= day_ago else None


def vacuum(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the file system; return whether there may be more."""
    free = _count_free_pages(connection)
    # Not `execute`, which takes the first step of this pragma only and so frees one page.
    connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})")
    return free - _count_free_pages(connection) >= VACUUM_PAGES_MAX


def _count_free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _pack(codec: BodyCodec, group_id: int, entries: Sequence[Entry], history: History) -> dict[str, Any]:
    body = join_entries(entries)
    kept_as, kept = codec.pack(body)
    return {
        "id": group_id,
        "index_name": entry_index(entries[0]),
        "events": len(entries),
        "body_bytes": len(body),
        "stored_bytes": len(kept),
        "codec": int(kept_as),
        "body": kept,
        **_history_row(history),
    }


def _history_row(history: History) -> dict[str, Any]:
    return {
        "attempts": history.attempts,
        "strikes": history.strikes,
        "refusals": history.refusals,
        "refused_status": history.refused_status,
        "attempted_at_ms": _encode_times(history.attempted_at_ms).decode("ascii"),
    }


def dead_address(entry: Entry) -> Address:
    """Return under which address a dead letter is kept; a damaged one has none, and is kept under its digest."""
    try:
        return entry_address(entry)
    except ValueError:
        # Damaged: it must not keep what is settled with it from being committed, again and again.
        return Address("", hashlib.sha256(entry).hexdigest())


def _bury(connection: sqlite3.Connection, letter: DeadLetter) -> None:
    address = dead_address(letter.entry)
    place = {"index_name": address.index, "log_id": address.log_id}
    before = connection.execute(SQL["dead_history"], place).fetchone()
    history = letter.history
    if before:
        # Damaged times must not keep what is settled with them from being committed, again and again.
        with contextlib.suppress(ValueError):
            history = read_history(*before).followed_by(history)
    row = place | {
        "error_type": letter.error_type,
        "reason": letter.reason,
        "died_at_ms": letter.died_at_ms,
        "entry": letter.entry,
    }
    connection.execute(SQL["bury"], row | _history_row(history))
