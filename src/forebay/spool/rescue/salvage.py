"""Saves the rows of a damaged database into a new one, after each value has been verified.

A duplicate is harmless, as delivery creates documents under ids that stay the same. A lost event is not. So an event is
also saved if damage hides whether it was settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from types import NoneType
from typing import Any, NamedTuple

import msgspec

from forebay.history import ATTEMPT_TIMES_MAX
from forebay.model import Address, Entry, entry_address, entry_document, split_entries
from forebay.spool.codec import GroupCodec, dead_address
from forebay.spool.records import Totals
from forebay.spool.rescue.trees import Row, Value
from forebay.spool.statements import SQL, read_statements
from forebay.spool.store import Store

ROWS_A_COMMIT = 1000

_SQL = SQL | read_statements("forebay.spool.rescue")
_decode_times = msgspec.json.Decoder(tuple[int, ...]).decode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Saved(NamedTuple):
    """The totals of the new file and of the damaged one; the latter are None if they could not be read."""

    totals: Totals
    before: Totals | None


class Group(NamedTuple):
    """The verified row of a group; `is_referenced` as in `Row`."""

    id: int
    is_referenced: bool
    columns: dict[str, Any]


class Other(NamedTuple):
    """The verified row of another table: the statement that stores it, and its parameters."""

    statement: str
    parameters: dict[str, Any]


def verify(row: Row, codec: GroupCodec) -> Group | Other | Totals | None:
    """Return the contents of a row; None if it cannot be read, or need not be saved.

    The types of the values tell the table of the row: no two tables have the same.
    """
    types = tuple(type(value) for value in row.values)
    if types == (NoneType, int, int, int, int, int, int, str, str, int, int, int, bytes):
        return _verify_group(row, codec)
    if types == (NoneType, str, str, str, str, int, str, int, int, bytes):
        return _verify_letter(row)
    if types == (NoneType, int, str, str):
        _, at_ms, kind, detail = row.values
        return Other("report", {"at_ms": at_ms, "kind": kind, "detail": detail})
    if row.is_referenced and types == (NoneType, int, int, int, int, int):
        return Totals(*row.values[1:])
    return None


def save(rows: Iterable[Row], store: Store) -> Saved:
    """Write rows into a new spool; referenced ones come first.

    If a group was found more than once, the row to which its table leads is the right one. If no table leads to any of
    them, each different body is saved under a number of its own: one may be the right one, the others are older.
    """
    codec = GroupCodec()
    writer = _Writer(store)
    all_found = (found for row in rows if (found := verify(row, codec)))
    while some := list(islice(all_found, ROWS_A_COMMIT)):
        with store.transaction():
            for found in some:
                writer.write(found)
    with store.transaction():
        writer.write_variants()
    return Saved(store.read_totals(), writer.totals_before)


class _Writer:
    def __init__(self, store: Store) -> None:
        self.totals_before: Totals | None = None
        self._store = store
        self._connection = store.connection
        self._variants: list[Group] = []
        # A table, as there may be millions: too many for memory.
        self._connection.execute("CREATE TEMP TABLE unreferenced (id INTEGER PRIMARY KEY)")

    def write(self, found: Group | Other | Totals) -> None:
        if isinstance(found, Totals):
            self.totals_before = found
            return
        if isinstance(found, Other):
            self._connection.execute(_SQL[found.statement], found.parameters)
            return
        there = self._connection.execute(_SQL["find_saved"], (found.id,)).fetchone()
        if there is None:
            self._connection.execute(_SQL["insert_group"], found.columns)
            if not found.is_referenced:
                self._connection.execute("INSERT INTO unreferenced VALUES (?)", (found.id,))
            return
        body, is_unreferenced = there
        if is_unreferenced and found.columns["body"] not in (body, *self._other_bodies(found.id)):
            self._variants.append(found)

    def write_variants(self) -> None:
        """Write the other bodies of groups that were found more than once."""
        for number, variant in enumerate(self._variants, self._store.last_group_id() + 1):
            self._connection.execute(_SQL["insert_group"], variant.columns | {"id": number})

    def _other_bodies(self, group_id: int) -> Iterator[bytes]:
        return (variant.columns["body"] for variant in self._variants if variant.id == group_id)


def _verify_group(row: Row, codec: GroupCodec) -> Group | None:
    _, events, body_bytes, stored_bytes, attempts, received_at_ms, strikes, times, _, *rest = row.values
    refusals, refused_status, body_codec, stored = rest
    try:
        body = codec.unpack(body_codec, stored)
        found = split_entries(body)
    except ValueError:
        return None
    if row.id < 1 or (events, body_bytes, stored_bytes) != (len(found), len(body), len(stored)):
        return None
    entries = [entry for entry in found if _is_whole(entry)]
    if not entries:
        return None
    columns = {
        "id": row.id,
        "attempts": _natural(attempts),
        "strikes": _natural(strikes),
        "attempted_at_ms": _times(times),
        "received_at_ms": _natural(received_at_ms),
        "refusals": _natural(refusals),
        "refused_status": _natural(refused_status),
    }
    return Group(row.id, row.is_referenced, columns | codec.body_columns(entries))


def _is_whole(entry: Entry) -> bool:
    """Return whether an entry has the form that intake gives it.

    A damaged action line would make the sink refuse the whole bulk.
    """
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
        "save_letter",
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
