"""The files of a spool: their names, and whether those that an owner has open are still the ones at their paths."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from datetime import UTC, datetime
from pathlib import Path

from forebay.spool.log_look import FRAME_BYTES, FRAME_HEADER_BYTES, HEADER_BYTES, START_BYTES, find_commit_behind

SIDES = ("", "-wal", "-shm")
"""The ends of the names of SQLite's own files: the database, its log, and the index of the log."""

TICK_S_MAX = 0.1
_SAME_SECOND_MAX = 100
_FRAMES_OFFSET = 16
_PIECE_BYTES = 1024 * 1024


class SpoolFiles:
    """The names of everything that lies beside a spool.

    Attributes:
        path: the spool as the settings name it; may be a link.
        absolute: the same, wherever the process is.
        database: where that leads to. All other files lie there.
        log: SQLite's write-ahead log.
        index: SQLite's index of the log.
        lock: whoever holds its lock owns the spool.
        reserve: room for deleting from a full disk.
        marker: is there while a repair is due or under way.
        doubt: is there from when a sync has failed until the log is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.absolute = path.absolute()
        self.database = path.resolve()
        self.log = self.beside("-wal")
        self.index = self.beside("-shm")
        self.lock = self.beside(".lock")
        self.reserve = self.beside(".reserve")
        self.marker = self.beside(".damaged")
        self.doubt = self.beside(".doubt")

    def beside(self, end: str) -> Path:
        """Return the database's name with another end."""
        return self.database.with_name(f"{self.database.name}{end}")

    def read_log_start(self) -> bytes:
        """Return the first bytes of the log, none if there is none."""
        try:
            with self.log.open("rb") as file:
                return file.read(START_BYTES)
        except FileNotFoundError:
            return b""

    def move_log_aside(self) -> Path:
        """Keep the log that is at its path where SQLite does not find it; return its new place."""
        aside = self.log.rename(f"{self.new_aside()}-wal")
        self.sync_folder()
        return aside

    def mark_doubt(self) -> None:
        """Note that the kernel may show bytes of the log that it will never write to the disk.

        After a sync that failed it calls them written (https://wiki.postgresql.org/wiki/Fsync_Errors). The next process
        must not build on them either. The note is not synced: a power cut takes those bytes with it.
        """
        with contextlib.suppress(OSError):
            self.doubt.touch()

    def new_aside(self) -> Path:
        """Return a name that is free for a file that is moved aside now."""
        name = f".aside-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        names = [name, *(f"{name}-{number}" for number in range(2, _SAME_SECOND_MAX))]
        places = [self.beside(name) for name in names]
        return next(place for place in places if not any(Path(f"{place}{side}").exists() for side in SIDES))

    def list_aside(self) -> list[Path]:
        """Return the files that were moved aside, but for those that go with a database among them."""
        found = {str(path) for path in self.database.parent.glob(f"{self.database.name}.aside-*")}
        alone = {
            path for path in found if not any(path.endswith(s) and path.removesuffix(s) in found for s in SIDES[1:])
        }
        return sorted(map(Path, alone))

    def sync_folder(self) -> None:
        """Have the folder's entries on disk: files that were made, renamed and deleted."""
        sync_folder(self.database.parent)


class OpenFiles:
    """The files that an owner has open.

    SQLite shows nobody its own descriptors. So the files are known by the numbers that they had when they were opened.
    Those of log and index stay open here until SQLite has closed its own: to close any descriptor of the index gives up
    the locks that SQLite holds on it (https://sqlite.org/howtocorrupt.html, section 2.2).
    """

    def __init__(self, files: SpoolFiles) -> None:
        """Take note of the files, right after SQLite has opened them.

        Raises:
            OSError: one of them is not there.
        """
        self._descriptors = contextlib.ExitStack()
        self._log = self._open(files.log, os.O_RDWR)
        self._index = self._open(files.index, os.O_RDONLY)
        # As text: this is looked up for every commit. Absolute: the folder that we are in may be moved.
        paths = list(map(str, (files.absolute, files.log, files.index, files.lock)))
        self._known = [(path, _identify(path)) for path in paths]
        self._folders = sorted({str(Path(path).parent) for path in paths})
        self._seen: list[tuple[int, int, int] | None] = []
        self._trusted_from_s = 0.0

    def _open(self, path: Path, flags: int) -> int:
        descriptor = os.open(path, flags)
        self._descriptors.callback(os.close, descriptor)
        return descriptor

    def find_changed(self) -> list[Path]:
        """Return which of database, log, index and lock are not at their paths any more, in this order."""
        # Whoever removes or replaces a file changes its folder. That is one call instead of four, each of which lets
        # another thread run and then waits for it.
        seen = [_look_at(folder) for folder in self._folders]
        if seen == self._seen and time.monotonic() >= self._trusted_from_s:
            return []
        if seen != self._seen:
            # Two changes within a tick of the kernel's clock look like one.
            self._seen, self._trusted_from_s = seen, time.monotonic() + TICK_S_MAX
        changed = [Path(path) for path, known in self._known if _identify(path) != known]
        if changed:
            self._seen = []
        return changed

    def sync_log(self) -> None:
        """Have the log on disk as it is, its length too (`OSError` if that fails)."""
        os.fsync(self._log)

    def write_log_again(self) -> None:
        """Write the log over itself and sync it, so that all of it is on the disk for certain (`OSError` if not).

        After a sync that failed the kernel calls bytes written that never were, and writes them only if they are
        written to once more. SQLite could not do that: it would write them into the database first, and a power cut in
        the middle would leave that with half of a commit that the log lacks.
        """
        offset = 0
        while piece := os.pread(self._log, _PIECE_BYTES, offset):
            offset += os.pwrite(self._log, piece, offset)
        self.sync_log()

    def strike_out(self) -> None:
        """Spoil what lies behind the last frame that SQLite goes by, on the disk too, so that it never counts.

        Only for whoever holds SQLite's lock for writing: the next commit will be written there.

        Raises:
            OSError: that could not be done.
        """
        frames = self.count_frames()
        # Without the first none of them counts; those that end a commit would be told of.
        behind: int | None = frames + 1
        while behind is not None:
            self._strike_out(behind)
            behind = find_commit_behind(self.read_log, frames)
        self.sync_log()

    def _strike_out(self, number: int) -> None:
        offset = HEADER_BYTES + (number - 1) * FRAME_BYTES
        if os.fstat(self._log).st_size >= offset + FRAME_HEADER_BYTES:
            os.pwrite(self._log, bytes(FRAME_HEADER_BYTES), offset)

    def read_log(self, offset: int, length: int) -> bytes:
        """Return bytes of the log, fewer where it ends."""
        return os.pread(self._log, length, offset)

    def count_frames(self) -> int:
        """Return how many frames of the log SQLite goes by (https://sqlite.org/walformat.html, section 2.1)."""
        content = os.pread(self._index, 4, _FRAMES_OFFSET)
        return int(struct.unpack("=I", content)[0]) if len(content) == 4 else 0  # noqa: PLR2004 - the width of the field

    def close(self) -> None:
        """Let go of the descriptors, once SQLite has closed its own; doing it again does nothing."""
        self._descriptors.close()


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> None:
    """Write a small file, and have it on disk with its name."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _look_at(folder: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(folder)  # noqa: PTH116 - a third of the time of `Path.stat`, for every commit
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _identify(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - the same
    except OSError:
        return None
    return found.st_dev, found.st_ino
