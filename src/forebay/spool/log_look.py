"""Looks at SQLite's write-ahead log from outside, to tell of it. SQLite alone decides what of it counts.

The log also holds frames of commits that were rolled back, and only SQLite's own recovery knows which they are. So
nothing that is found here saves an event or calls a spool damaged.

Source: https://sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
FRAME_BYTES = FRAME_HEADER_BYTES + 4096
START_BYTES = HEADER_BYTES + 1
FRAMES_LOOKED_AT_MAX = 2000
"""More than one commit of ours takes; the look is to cost a start nothing."""

_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}
_WORD = 0xFFFFFFFF

Read = Callable[[int, int], bytes]
"""Returns bytes of the log by offset and length, fewer where it ends."""


def is_header_broken(log: bytes) -> bool:
    """Return whether a log begins with bytes for which SQLite takes it for an empty one, though there is more of it."""
    if len(log) < START_BYTES:
        return False
    order = _MAGICS.get(int.from_bytes(log[:4], "big"))
    return order is None or _sum(log[:24], order) != struct.unpack(">II", log[24:HEADER_BYTES])


def find_commit_behind(read: Read, frames: int) -> int | None:
    """Return the number of a frame that ends a commit behind the `frames` that SQLite goes by, or None.

    The newest commit may lie there by right: the power went, or the process ended, while it was being written.
    """
    salts = read(16, 8)
    for number in range(frames + 1, frames + 1 + FRAMES_LOOKED_AT_MAX):
        header = read(HEADER_BYTES + (number - 1) * FRAME_BYTES, FRAME_HEADER_BYTES)
        if len(header) < FRAME_HEADER_BYTES:
            return None
        # Other salts are of what the log held before it last began anew, or are damaged.
        if header[8:16] == salts and int.from_bytes(header[4:8], "big"):
            return number
    return None


def _sum(data: bytes, order: str) -> tuple[int, int]:
    first = second = 0
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _WORD
        second = (second + two + first) & _WORD
    return first, second
