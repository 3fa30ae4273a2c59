"""SQLite's write-ahead log, read from outside. SQLite alone decides which commits in it count.

The log also contains frames of commits that were rolled back, and only SQLite's own recovery tells them apart. So
nothing that is read here saves an event, or calls a spool damaged.

Source: https://sqlite.org/fileformat2.html, section 4, and https://sqlite.org/walformat.html, section 2.1 (index).
"""

from __future__ import annotations

import contextlib
import os
import struct

from forebay.spool.files import PAGE_BYTES, SpoolFiles

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
START_BYTES = HEADER_BYTES + 1
FRAMES_SEARCHED_MAX = 4000
"""More than one commit of ours has; it bounds the time of a start."""

_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}
_WORD = 0xFFFFFFFF
_FRAMES_OFFSET = 16
_COPIED_BYTES = 1024 * 1024


class Wal:
    """The log of a database that SQLite has open, through descriptors of our own.

    They stay open until SQLite has closed its own: if one of the index is closed before, SQLite loses its locks on it
    (https://sqlite.org/howtocorrupt.html, section 2.2).
    """

    def __init__(self, files: SpoolFiles) -> None:
        """Open log and index, right after SQLite has opened them.

        Raises:
            OSError: one of them is not there.
        """
        self._descriptors = contextlib.ExitStack()
        self._log = self._open(files.wal, os.O_RDWR)
        self._index = self._open(files.shm, os.O_RDONLY)

    def sync(self) -> None:
        """Sync the log, its length too (`OSError` if that fails)."""
        os.fsync(self._log)

    def write_again(self) -> None:
        """Write the log over itself and sync it, so that all of it is certainly on the disk (`OSError` if not).

        After a failed sync the kernel calls bytes written that never were, and writes them only if it gets them once
        more. SQLite could not do that: it would write them into the database first. If the power went in the middle,
        the database would have half of a commit that the log lacks.
        """
        offset = 0
        while piece := os.pread(self._log, _COPIED_BYTES, offset):
            offset += os.pwrite(self._log, piece, offset)
        self.sync()

    def spoil_uncounted(self) -> None:
        """Spoil the frames behind the last one that counts, also on the disk, so that they never count.

        The caller has SQLite's lock for writing, since the next commit is written there.

        Raises:
            OSError: the disk failed.
        """
        frames = self.count_frames()
        # If the first of them is spoilt, none counts. The next start would report those that end a commit.
        number: int | None = frames + 1
        while number is not None:
            self._spoil(number)
            number = self._find_commit_behind(frames)
        self.sync()

    def find_uncounted_commit(self) -> tuple[int, int] | None:
        """Return the last frame that SQLite counts, and one behind it that ends another commit, or None.

        The newest commit may lie there without any damage: the power went, or the process ended, while it was written.
        """
        frames = self.count_frames()
        behind = self._find_commit_behind(frames)
        return None if behind is None else (frames, behind)

    def count_frames(self) -> int:
        """Return the number of frames that SQLite counts, from its index."""
        content = os.pread(self._index, 4, _FRAMES_OFFSET)
        return int(struct.unpack("=I", content)[0]) if len(content) == 4 else 0  # noqa: PLR2004 - the width of the field

    def close(self) -> None:
        """Close the descriptors after SQLite has closed its own; doing it again does nothing."""
        self._descriptors.close()

    def _open(self, path: os.PathLike[str], flags: int) -> int:
        try:
            descriptor = os.open(path, flags)
        except OSError:
            self._descriptors.close()
            raise
        self._descriptors.callback(os.close, descriptor)
        return descriptor

    def _find_commit_behind(self, frames: int) -> int | None:
        salts = os.pread(self._log, 8, 16)
        for number in range(frames + 1, frames + 1 + FRAMES_SEARCHED_MAX):
            header = os.pread(self._log, FRAME_HEADER_BYTES, _frame_offset(number))
            if len(header) < FRAME_HEADER_BYTES:
                return None
            # Frames with other salts are from before the log began anew, or damaged.
            if header[8:16] == salts and int.from_bytes(header[4:8], "big"):
                return number
        return None

    def _spoil(self, number: int) -> None:
        offset = _frame_offset(number)
        if os.fstat(self._log).st_size >= offset + FRAME_HEADER_BYTES:
            os.pwrite(self._log, bytes(FRAME_HEADER_BYTES), offset)


def is_unreadable(files: SpoolFiles) -> bool:
    """Return whether SQLite would take the log for an empty one, though there is something in it."""
    try:
        with files.wal.open("rb") as file:
            start = file.read(START_BYTES)
    except FileNotFoundError:
        return False
    if len(start) < START_BYTES:
        return False
    byte_order = _MAGICS.get(int.from_bytes(start[:4], "big"))
    return byte_order is None or _sum(start[:24], byte_order) != struct.unpack(">II", start[24:HEADER_BYTES])


def _frame_offset(number: int) -> int:
    return HEADER_BYTES + (number - 1) * FRAME_BYTES


def _sum(data: bytes, byte_order: str) -> tuple[int, int]:
    first = second = 0
    words = struct.unpack(f"{byte_order}{len(data) // 4}I", data)
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _WORD
        second = (second + two + first) & _WORD
    return first, second
