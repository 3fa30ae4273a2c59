"""SQLite's write-ahead log, read without SQLite, which stops at the first frame that is damaged.

Each frame's checksum goes on from that of the frame before it, as it is written there. So a frame can be verified also
where others before it are damaged.

Source: https://sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
PAGE_BYTES = 4096
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES

_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}
_WORD = 0xFFFFFFFF

Log = bytes | mmap.mmap


class Frame(NamedTuple):
    """One page in the log; `pages_after` is not 0 for the last frame of a commit."""

    offset: int
    page: int
    pages_after: int
    salts: bytes
    checksum: tuple[int, int]


def is_header_whole(log: Log) -> bool:
    """Return whether the log begins as SQLite left it; where not, SQLite takes the log for an empty one."""
    order = _MAGICS.get(int.from_bytes(log[:4], "big"))
    if order is None or len(log) < HEADER_BYTES or int.from_bytes(log[8:12], "big") != PAGE_BYTES:
        return False
    return _add(log[:24], order, (0, 0)) == struct.unpack(">II", log[24:HEADER_BYTES])


def list_commits(log: Log) -> list[int]:
    """Return the numbers, from 1, of the frames that end a commit, without looking at their pages."""
    salts = _find_salts(log)
    return [number for number, frame in enumerate(_frames(log), 1) if frame.pages_after and frame.salts == salts]


def read_log(log: Log) -> dict[int, int]:
    """Return the pages of all commits in the log, each with the offset of its newest content that is not damaged."""
    salts = _find_salts(log)
    order = _MAGICS.get(int.from_bytes(log[:4], "big"), "<")
    before = struct.unpack(">II", log[24:HEADER_BYTES]) if is_header_whole(log) else None
    committed: dict[int, int] = {}
    open_pages: dict[int, int] = {}
    for frame in _frames(log):
        if frame.salts == salts and _is_whole(log, frame, order, before):
            open_pages[frame.page] = frame.offset + FRAME_HEADER_BYTES
            if frame.pages_after:
                committed |= open_pages
                open_pages = {}
        before = frame.checksum
    return committed


def _find_salts(log: Log) -> bytes:
    """Return the salts of the frames that belong to the log; others are left over from before it began anew.

    They are in its header; where that is damaged, the first frame has them, as the log is written from its beginning.
    """
    if is_header_whole(log):
        return log[16:24]
    return log[HEADER_BYTES + 8 : HEADER_BYTES + 16]


def _frames(log: Log) -> Iterator[Frame]:
    for offset in range(HEADER_BYTES, len(log) - FRAME_BYTES + 1, FRAME_BYTES):
        page, pages_after, salts, *checksum = struct.unpack_from(">II8sII", log, offset)
        yield Frame(offset, page, pages_after, salts, (checksum[0], checksum[1]))


def _is_whole(log: Log, frame: Frame, order: str, before: tuple[int, int] | None) -> bool:
    if not frame.page:
        return False
    if before is None:  # the first frame behind a damaged header: nothing to go on from
        return True
    start = frame.offset + FRAME_HEADER_BYTES
    checksum = _add(log[frame.offset : frame.offset + 8], order, before)
    return _add(log[start : start + PAGE_BYTES], order, checksum) == frame.checksum


def _add(data: bytes, order: str, checksum: tuple[int, int]) -> tuple[int, int]:
    first, second = checksum
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _WORD
        second = (second + two + first) & _WORD
    return first, second
