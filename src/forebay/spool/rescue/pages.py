"""Reads the pages of a damaged database from the disk, without SQLite.

Source: https://sqlite.org/fileformat2.html, sections 1.3 (header), 1.5 (freelist) and 1.8 (pointer map).
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forebay.spool.files import PAGE_BYTES

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\0"

_POINTER_BYTES = 5
_PAGES_A_MAP = PAGE_BYTES // _POINTER_BYTES + 1
_LOCK_PAGE = 0x40000000 // PAGE_BYTES + 1
_FREE_PAGE = 2
_KINDS = range(1, 6)


class Header(NamedTuple):
    """The facts about a database that its first page tells."""

    freelist_page: int
    application_id: int


def _parse_header(page: bytes) -> Header | None:
    """Return the header of a first page, None if it does not begin an SQLite database with our size of pages."""
    if len(page) < HEADER_BYTES or page[:16] != MAGIC or page[16:18] != PAGE_BYTES.to_bytes(2, "big"):
        return None
    numbers = struct.unpack(">21I", page[16:HEADER_BYTES])
    return Header(numbers[4], numbers[13])


class Pages:
    """The pages of a database; a page that is cut off or does not exist is None."""

    def __init__(self, file: bytes | mmap.mmap) -> None:
        self._file = file
        self.count = len(file) // PAGE_BYTES
        first = self.read(1)
        self.header = None if first is None else _parse_header(first)

    def read(self, number: int) -> bytes | None:
        """Return a page; pages are numbered from 1."""
        start = (number - 1) * PAGE_BYTES
        page = self._file[start : start + PAGE_BYTES] if number > 0 else b""
        return page if len(page) == PAGE_BYTES else None

    def list_free(self) -> bytearray:
        """Return a flag for each page, set if it is on the list of free pages as far as that can be followed."""
        free = bytearray(self.count + 1)
        number = self.header.freelist_page if self.header else 0
        while 0 < number <= self.count and not free[number] and (page := self.read(number)):
            free[number] = True
            number, leaves = struct.unpack_from(">II", page)
            if leaves > PAGE_BYTES // 4 - 2:
                break
            for leaf in struct.unpack_from(f">{leaves}I", page, 8):
                if leaf <= self.count:
                    free[leaf] = True
        return free

    def is_free(self, number: int, listed: bytearray) -> bool:
        """Return whether a page is free: by the pointer map, or by the list if the map does not tell."""
        map_number = (number - 2) // _PAGES_A_MAP * _PAGES_A_MAP + 2
        map_number += map_number == _LOCK_PAGE
        page = self.read(map_number)
        if page is None or number <= map_number:
            return bool(listed[number])
        kind, parent = struct.unpack_from(">BI", page, _POINTER_BYTES * (number - map_number - 1))
        if kind not in _KINDS:
            return bool(listed[number])
        return bool(kind == _FREE_PAGE and not parent)


@contextlib.contextmanager
def open_pages(path: Path) -> Iterator[Pages]:
    """Open a database that SQLite has closed; it may be missing or empty."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (FileNotFoundError, ValueError):  # ValueError: an empty file cannot be mapped
            yield Pages(b"")
        else:
            yield Pages(content)
