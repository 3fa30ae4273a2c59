"""Finds the rows of a damaged database: through its tables if they are whole, else page by page.

Source: https://sqlite.org/fileformat2.html, sections 1.6 (pages of a table), 2.1 (rows) and 2.6 (the schema's table).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from forebay.spool.files import PAGE_BYTES
from forebay.spool.rescue.pages import HEADER_BYTES, Pages

Value = None | int | float | str | bytes

_INTERIOR = 0x05
_LEAF = 0x0D
_CELLS_MAX = PAGE_BYTES // 4
_LOCAL_MAX = PAGE_BYTES - 35
_LOCAL_MIN = (PAGE_BYTES - 12) * 32 // 255 - 23
_OVERFLOW_BYTES = PAGE_BYTES - 4
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Row(NamedTuple):
    """A row. `is_referenced` if its table leads to it, not if only its page was found."""

    id: int
    values: tuple[Any, ...]
    is_referenced: bool


class _Damage(Exception):
    """These bytes are not as SQLite writes them."""


def read_rows(pages: Pages) -> Iterator[Row]:
    """Go through the rows of all tables but the schema's: the referenced ones first, then those that may be stale.

    Pages to which no table leads are read only if damage may have cut them off. Their rows may be deleted ones; the
    caller decides. Damaged rows are left out.
    """
    walk = _Walk(pages)
    # The numbers of the roots are in the schema's table, which begins on the first page.
    roots = [row.values[3] for row in walk.rows(1) if len(row.values) == 5 and row.values[0] == "table"]  # noqa: PLR2004
    for root in roots:
        if isinstance(root, int):
            yield from walk.rows(root)
    if not walk.damaged and roots:
        return
    listed = pages.list_free()
    for number in range(2, pages.count + 1):
        if not walk.seen[number] and not pages.is_free(number, listed):
            yield from _rows_of_leaf(pages, number)


class _Walk:
    """Goes through tables, and notes the pages that it has seen and whether it met damage."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        # A flag for each page: a set of millions of numbers would not fit into the memory of a small server.
        self.seen = bytearray(pages.count + 1)
        self.damaged = False

    def rows(self, root: int) -> Iterator[Row]:
        left = [root]
        while left:
            number = left.pop()
            page = self._pages.read(number)
            if page is None or self.seen[number]:
                self.damaged = True
                continue
            kind = page[_start(number)]
            if kind == _INTERIOR:
                self.seen[number] = True
                left.extend(reversed(self._children(page, number)))
            elif kind == _LEAF:
                self.seen[number] = True
                yield from self._leaf(page, number)
            else:
                self.damaged = True

    def _children(self, page: bytes, number: int) -> list[int]:
        try:
            children = [struct.unpack_from(">I", page, cell)[0] for cell in _cells(page, number)]
        except _Damage:
            self.damaged = True
            children = []
        return [*children, struct.unpack_from(">I", page, _start(number) + 8)[0]]

    def _leaf(self, page: bytes, number: int) -> Iterator[Row]:
        try:
            cells = _cells(page, number)
        except _Damage:
            self.damaged = True
            return
        for cell in cells:
            try:
                yield _read_row(self._pages, page, cell, is_referenced=True)
            except _Damage:
                self.damaged = True


def _rows_of_leaf(pages: Pages, number: int) -> Iterator[Row]:
    page = pages.read(number)
    if page is None or page[0] != _LEAF:
        return
    try:
        cells = _cells(page, number)
    except _Damage:
        return
    for cell in cells:
        try:
            yield _read_row(pages, page, cell, is_referenced=False)
        except _Damage:
            continue


def _start(number: int) -> int:
    return HEADER_BYTES if number == 1 else 0


def _cells(page: bytes, number: int) -> list[int]:
    """Return the offsets of the cells on a page of a table."""
    start = _start(number)
    (count,) = struct.unpack_from(">H", page, start + 3)
    array = start + (12 if page[start] == _INTERIOR else 8)
    if count > _CELLS_MAX or array + 2 * count > PAGE_BYTES:
        raise _Damage
    cells = list(struct.unpack_from(f">{count}H", page, array))
    if any(not array + 2 * count <= cell <= PAGE_BYTES - 4 for cell in cells):
        raise _Damage
    return cells


def _read_row(pages: Pages, page: bytes, cell: int, *, is_referenced: bool) -> Row:
    try:
        payload_bytes, at = _varint(page, cell)
        row_id, at = _varint(page, at)
        payload = _payload(pages, page, at, payload_bytes)
        return Row(_signed(row_id), _values(payload), is_referenced)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise _Damage from error


def _payload(pages: Pages, page: bytes, at: int, payload_bytes: int) -> bytes:
    if payload_bytes > pages.count * PAGE_BYTES:
        raise _Damage
    local = payload_bytes
    if payload_bytes > _LOCAL_MAX:
        local = _LOCAL_MIN + (payload_bytes - _LOCAL_MIN) % _OVERFLOW_BYTES
        local = local if local <= _LOCAL_MAX else _LOCAL_MIN
    parts = [page[at : at + local]]
    left = payload_bytes - local
    number = struct.unpack_from(">I", page, at + local)[0] if left else 0
    while left:
        more = pages.read(number)
        if more is None:
            raise _Damage
        parts.append(more[4 : 4 + min(left, _OVERFLOW_BYTES)])
        left -= len(parts[-1])
        (number,) = struct.unpack_from(">I", more)
    payload = b"".join(parts)
    if number or len(payload) != payload_bytes:
        raise _Damage
    return payload


def _values(payload: bytes) -> tuple[Value, ...]:
    header_bytes, at = _varint(payload, 0)
    body = header_bytes
    values: list[Value] = []
    while at < header_bytes:
        kind, at = _varint(payload, at)
        value, body = _value(payload, kind, body)
        values.append(value)
    if at != header_bytes or body != len(payload):
        raise _Damage
    return tuple(values)


def _value(payload: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind in (8, 9):
        return kind - 8, at
    if kind in _INTEGER_BYTES:
        end = at + _INTEGER_BYTES[kind]
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if kind == 7:  # noqa: PLR2004 - the format's number for a float
        return struct.unpack_from(">d", payload, at)[0], at + 8
    if kind >= 12:  # noqa: PLR2004 - the format's first number for a blob
        end = at + (kind - 12) // 2
        if end > len(payload):
            raise _Damage
        return (payload[at:end].decode() if kind % 2 else payload[at:end]), end
    if kind:
        raise _Damage
    return None, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at an offset, and the offset behind it (section 1.6)."""
    number = 0
    for index in range(at, at + 8):
        byte = data[index]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the bit that means that more follows
            return number, index + 1
    return number << 8 | data[at + 8], at + 9


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
