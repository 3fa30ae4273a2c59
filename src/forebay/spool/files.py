"""The files of a spool: their names, and the check that the open ones are still at their paths."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

PAGE_BYTES = 2048
"""The size of a page of the database and its log. It is the same in every spool, so that pages are found even if the
first one, which tells the size, is damaged (docs/decisions/cheaper-commits.md)."""

TICK_S_MAX = 0.1
_SAME_SECOND_MAX = 100


class SpoolFiles:
    """The names of everything that lies beside a spool.

    Attributes:
        path: the spool as the settings name it; it may be a link.
        absolute: the same path, independent of the working directory.
        database: the file to which it leads. All other files lie beside this one.
        wal: SQLite's write-ahead log.
        shm: SQLite's index of the log.
        lock: the process that holds a lock on it owns the spool.
        reserve: takes the room that deletions from a full disk need.
        doubt: exists from a failed sync of the log until the log is safe.
        damage_marker: exists while a rescue is due or under way.
        rescued: the new database of a rescue, until it is whole.
        rescue_copy: a copy of a damaged database, into which its log is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.absolute = path.absolute()
        self.database = path.resolve()
        self.wal = self._beside("-wal")
        self.shm = self._beside("-shm")
        self.lock = self._beside(".lock")
        self.reserve = self._beside(".reserve")
        self.doubt = self._beside(".doubt")
        self.damage_marker = self._beside(".damaged")
        self.rescued = self._beside(".saving")
        self.rescue_copy = self._beside(".copy")

    @property
    def of_sqlite(self) -> tuple[Path, Path, Path]:
        """The files that SQLite makes: database, log, and index of the log."""
        return self.database, self.wal, self.shm

    def measure_wal(self) -> int:
        """Return the bytes of the log, 0 if there is none."""
        try:
            return self.wal.stat().st_size
        except FileNotFoundError:
            return 0

    def remove_sqlite(self) -> None:
        """Remove SQLite's files, if they are there."""
        for file in self.of_sqlite:
            file.unlink(missing_ok=True)

    def new_name_away(self) -> SpoolFiles:
        """Return free names to which SQLite's files can be moved now."""
        name = f".moved-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        names = [name, *(f"{name}-{number}" for number in range(2, _SAME_SECOND_MAX))]
        candidates = (SpoolFiles(self._beside(name)) for name in names)
        return next(files for files in candidates if not any(file.exists() for file in files.of_sqlite))

    def list_moved_away(self) -> list[Path]:
        """Return the files that were moved away; the log of a database is not listed beside it."""
        found = set(self.database.parent.glob(f"{self.database.name}.moved-*"))
        accompanying = {file for path in found for file in SpoolFiles(path).of_sqlite[1:]}
        return sorted(found - accompanying)

    def move_wal_away(self) -> Path:
        """Move the log to a name under which SQLite does not find it; return the new path."""
        moved = self.wal.rename(self.new_name_away().wal)
        sync_folder(moved.parent)
        return moved

    def note_doubt(self) -> None:
        """Note that the kernel may show bytes of the log that it will never write to the disk.

        After a failed sync it calls them written (https://wiki.postgresql.org/wiki/Fsync_Errors). The next process must
        not build on them either. The note itself is not synced: if the power goes, those bytes are gone too.
        """
        with contextlib.suppress(OSError):
            self.doubt.touch()

    def describe_change(self, changed: list[Path]) -> str:
        """Return the consequence and the advice for files that are no longer the open ones."""
        names = ", ".join(path.name for path in changed)
        text = f"{names} in {changed[0].parent}: removed or replaced while the server runs, and no events are taken"
        if self.absolute in changed:
            return (
                f"{text}; undelivered events are in this process alone: do not end it before everything is "
                "delivered (forebay_spool_events 0), or put the files back"
            )
        return f"{text}; everything that was synced is in {self.database.name}: restart this server, and start no other"

    def _beside(self, end: str) -> Path:
        return self.database.with_name(f"{self.database.name}{end}")


def spool_path(database: Path, number: int) -> Path:
    """Return the path of a worker's spool: the first has the named database, the others `name.2.db` and so on."""
    return database if number == 1 else database.with_name(f"{database.stem}.{number}{database.suffix}")


def find_spools(database: Path, *, end: str = "") -> dict[int, Path]:
    """Return the spools that exist, by number, lowest first: those with a database, or with a file of another end."""
    form = re.compile(rf"{re.escape(database.stem)}\.([1-9][0-9]*){re.escape(database.suffix)}{re.escape(end)}")
    found = {1: database} if database.with_name(f"{database.name}{end}").exists() else {}
    for path in database.parent.glob("*"):
        match = form.fullmatch(path.name)
        if match and int(match[1]) > 1:
            found[int(match[1])] = path.with_name(path.name.removesuffix(end))
    return dict(sorted(found.items()))


class OpenFiles:
    """Compares the files that an owner has open with those at their paths.

    SQLite does not show its descriptors. So the files are known by the inode numbers that they had when they were
    opened.
    """

    def __init__(self, files: SpoolFiles) -> None:
        """Take note of the files, right after SQLite has opened them."""
        # As text: they are checked at every commit. Absolute: our working directory may be moved.
        paths = list(map(str, (files.absolute, files.wal, files.shm, files.lock)))
        self._known = [(path, _identify(path)) for path in paths]
        self._folders = sorted({str(Path(path).parent) for path in paths})
        self._seen: list[tuple[int, int, int] | None] = []
        self._trusted_from_s = 0.0

    def find_changed(self) -> list[Path]:
        """Return those of database, log, index and lock that are no longer at their paths, in this order."""
        # Whoever removes or replaces a file changes its folder. So one call does for four, each of which would let
        # another thread run and then wait for it.
        seen = [_last_change(folder) for folder in self._folders]
        if seen == self._seen and time.monotonic() >= self._trusted_from_s:
            return []
        if seen != self._seen:
            # Within one tick of the kernel's clock two changes look like one.
            self._seen, self._trusted_from_s = seen, time.monotonic() + TICK_S_MAX
        changed = [Path(path) for path, known in self._known if _identify(path) != known]
        if changed:
            self._seen = []
        return changed


class Closeable(Protocol):
    """Something that must be closed."""

    def close(self) -> None:
        """Close it."""


@contextlib.contextmanager
def closed_on_failure(resource: Closeable) -> Iterator[None]:
    """Close a resource only if the block fails."""
    try:
        yield
    except BaseException:
        resource.close()
        raise


def sync_folder(folder: Path) -> None:
    """Sync a folder: the files that were made, renamed and deleted in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> None:
    """Write a small file, and sync it with its name."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _last_change(folder: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(folder)  # noqa: PTH116 - a third of the time of `Path.stat`, for every commit
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _identify(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    return found.st_dev, found.st_ino
