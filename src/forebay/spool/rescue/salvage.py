"""From the rows of a damaged database to what a new one is given: every value is looked at, no row is believed.

A duplicate is harmless, as delivery creates documents under ids that stay the same; a lost event is not. So what may
have been settled already is saved too where damage keeps it from being known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from types import NoneType
from typing import Any, NamedTuple

import msgspec

from forebay.model import (
    ATTEMPT_TIMES_MAX,
    Address,
    Entry,
    entry_address,
    entry_document,
    entry_index,
    join_entries,
    split_entries,
)
from forebay.spool.codec import BodyCodec
from forebay.spool.records import Totals
from forebay.spool.rescue.trees import Row, Value
from forebay.spool.statements import SQL
from forebay.spool.writing import dead_address, read_totals, transaction

ROWS_A_COMMIT = 1000

_decode_times = msgspec.json.Decoder(tuple[int, ...]).decode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Saved(NamedTuple):
    """What was saved, and what the damaged file said that it held, None where that could not be read."""

    totals: Totals
    held: Totals | None


class Group(NamedTuple):
    """A group's row, verified."""

    id: int
    sure: bool
    columns: dict[str, Any]


class Other(NamedTuple):
    """A verified row that is no group's: the statement that keeps it, and what it takes."""

    statement: str
    parameters: Any


def verify(row: Row, codec: BodyCodec) -> Group | Other | Totals | None:
    """Return what a row of a spool holds, None where it holds nothing that is kept, or nothing that can be read.

    The table of a row is known by its types: no two tables have the same.
    """
    types = tuple(type(value) for value in row.values)
    if types == (NoneType, int, int, int, int, int, int, str, str, int, int, int, bytes):
        return _verify_group(row, codec)
    if types == (NoneType, str, str, str, str, int, str, int, int, bytes):
        return _verify_letter(row)
    if types == (NoneType, int, str, str):
        return Other("report", row.values[1:])
    if row.sure and types == (NoneType, int, int, int, int, int):
        return Totals(*row.values[1:])
    return None


def save(rows: Iterable[Row], connection: sqlite3.Connection) -> Saved:
    """Write what rows hold into a new spool; those that are sure come first.

    Of a group that was found more than once, what its table leads to is the truth. Where no table does, each different
    body is kept, under numbers of their own: one of them may be the row that was there, and the others older ones.
    """
    codec = BodyCodec()
    keeper = _Keeper(connection)
    all_found = (found for row in rows if (found := verify(row, codec)))
    while some := list(islice(all_found, ROWS_A_COMMIT)):
        with transaction(connection):
            for found in some:
                keeper.keep(found)
    with transaction(connection):
        keeper.keep_rivals()
    return Saved(read_totals(connection), keeper.held)


class _Keeper:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.held: Totals | None = None
        self._connection = connection
        self._rivals: list[Group] = []
        # Not in memory: there may be millions of them.
        connection.execute("CREATE TEMP TABLE doubtful (id INTEGER PRIMARY KEY)")

    def keep(self, found: Group | Other | Totals) -> None:
        if isinstance(found, Totals):
            self.held = found
            return
        if isinstance(found, Other):
            self._connection.execute(SQL[found.statement], found.parameters)
            return
        there = self._connection.execute(
            "SELECT body, EXISTS (SELECT 1 FROM doubtful WHERE id = groups.id) FROM groups WHERE id = ?", (found.id,)
        ).fetchone()
        if there is None:
            self._connection.execute(SQL["insert_group"], found.columns)
            if not found.sure:
                self._connection.execute("INSERT INTO doubtful VALUES (?)", (found.id,))
        elif there[1] and found.columns["body"] not in (there[0], *self._bodies_of_rivals(found.id)):
            self._rivals.append(found)

    def _bodies_of_rivals(self, group_id: int) -> Iterator[bytes]:
        return (rival.columns["body"] for rival in self._rivals if rival.id == group_id)

    def keep_rivals(self) -> None:
        (last_id,) = self._connection.execute(SQL["last_group"]).fetchone()
        for number, rival in enumerate(self._rivals, last_id + 1):
            self._connection.execute(SQL["insert_group"], rival.columns | {"id": number})


def _verify_group(row: Row, codec: BodyCodec) -> Group | None:
    _, events, body_bytes, stored_bytes, attempts, received_at_ms, strikes, times, _, *rest = row.values
    refusals, refused_status, kept_as, kept = rest
    try:
        body = codec.unpack(kept_as, kept)
        found = split_entries(body)
    except ValueError:
        return None
    if row.id < 1 or (events, body_bytes, stored_bytes) != (len(found), len(body), len(kept)):
        return None
    columns = {
        "id": row.id,
        "events": events,
        "body_bytes": body_bytes,
        "stored_bytes": stored_bytes,
        "codec": kept_as,
        "body": kept,
        "attempts": _natural(attempts),
        "strikes": _natural(strikes),
        "attempted_at_ms": _times(times),
        "received_at_ms": _natural(received_at_ms),
        "refusals": _natural(refusals),
        "refused_status": _natural(refused_status),
    }
    entries = [entry for entry in found if _is_whole(entry)]
    if not entries:
        return None
    columns["index_name"] = entry_index(entries[0])
    if len(entries) < len(found):
        columns |= _repack(entries, codec)
    return Group(row.id, row.sure, columns)


def _repack(entries: list[Entry], codec: BodyCodec) -> dict[str, Any]:
    body = join_entries(entries)
    kept_as, kept = codec.pack(body)
    return {
        "events": len(entries),
        "body_bytes": len(body),
        "stored_bytes": len(kept),
        "codec": int(kept_as),
        "body": kept,
    }


def _is_whole(entry: Entry) -> bool:
    """Return whether an entry is what intake makes: a damaged action would make the sink refuse the whole bulk."""
    try:
        entry_address(entry)
        _check_json(entry_document(entry))
    except ValueError:
        return False
    return True


def _verify_letter(row: Row) -> Other | None:
    _, index_name, log_id, error_type, reason, attempts, times, died_at_ms, replay, entry = row.values
    if dead_address(entry) != Address(index_name, log_id) or (index_name and not _is_whole(entry)):
        return None
    return Other(
        "adopt_letter",
        {
            "index_name": index_name,
            "log_id": log_id,
            "error_type": error_type,
            "reason": reason,
            "attempts": _natural(attempts),
            "attempted_at_ms": _times(times),
            "died_at_ms": _natural(died_at_ms),
            "replay": int(replay == 1),
            "entry": entry,
        },
    )


def _natural(number: Value) -> int:
    return number if isinstance(number, int) and number >= 0 else 0


def _times(text: Value) -> str:
    try:
        times = _decode_times(str(text))
    except ValueError:
        return "[]"
    return str(text) if len(times) <= ATTEMPT_TIMES_MAX else "[]"
