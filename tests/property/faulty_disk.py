"""The disk under a spool in one of its lives: steps fail in their time, and at some step the life ends.

That end is a picture of the disk at that step. From then on nothing works any more, so that what is left of the life,
whose process would be dead, changes nothing and ends soon.
"""

from __future__ import annotations

import dataclasses
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from property.disk_model import SECTOR_BYTES, Disk, Luck
from testbed.servers.faulty_vfs import Fault, Operation, Policy

LOG_END = "-wal"
INDEX_END = "-shm"
FOR_EVER = 10**9

FORGETTING = 0.3
"""How likely the kernel is to forget pages it could not write, as some file systems make it."""

CODES = {
    Operation.WRITE: sqlite3.SQLITE_IOERR_WRITE,
    Operation.TRUNCATE: sqlite3.SQLITE_IOERR_TRUNCATE,
    Operation.SYNC: sqlite3.SQLITE_IOERR_FSYNC,
    Operation.DELETE: sqlite3.SQLITE_IOERR_DELETE,
}

KINDS: tuple[tuple[Operation, str, int], ...] = (
    (Operation.SYNC, "log", sqlite3.SQLITE_IOERR_FSYNC),
    (Operation.SYNC, "database", sqlite3.SQLITE_IOERR_FSYNC),
    (Operation.SYNC, "", sqlite3.SQLITE_IOERR_FSYNC),
    (Operation.WRITE, "log", sqlite3.SQLITE_IOERR_WRITE),
    (Operation.WRITE, "database", sqlite3.SQLITE_IOERR_WRITE),
    (Operation.WRITE, "", sqlite3.SQLITE_IOERR_WRITE),
    (Operation.WRITE, "log", sqlite3.SQLITE_FULL),
    (Operation.WRITE, "", sqlite3.SQLITE_FULL),
    (Operation.TRUNCATE, "", sqlite3.SQLITE_IOERR_TRUNCATE),
    (Operation.DELETE, "", sqlite3.SQLITE_IOERR_DELETE),
)


@dataclasses.dataclass
class Trouble:
    """A kind of step that fails some times, from some step of the life on.

    Attributes:
        side: `log` or `database`; empty for both.
        left: how many times it fails yet.
    """

    operation: Operation
    side: str
    code: int
    begins_at: int
    left: int

    @classmethod
    def draw(cls, chance: random.Random, begins_at: int) -> Trouble:
        left = chance.choice([1, 1, 1, 2, chance.randrange(1, 20), FOR_EVER])
        return cls(*chance.choice(KINDS), begins_at, left)

    def meets(self, operation: Operation, side: str, step: int) -> bool:
        return step >= self.begins_at and self.left > 0 and operation is self.operation and self.side in ("", side)


class Picture(NamedTuple):
    """The disk, and the files beside the spool, of which SQLite knows nothing."""

    disk: Disk
    others: dict[str, bytes]

    def write(self, folder: Path) -> None:
        for name, content in self.others.items():
            (folder / name).write_bytes(content)
        for name, file in self.disk.files.items():
            (folder / name).write_bytes(file.content)


class FaultyDisk(Policy):
    """The disk of one life.

    Attributes:
        step: how many steps were asked for.
        ends_at: the step before which the life ends, if it comes so far.
        faults: how many steps have failed.
        picture: how it was at the end, None until then.
    """

    def __init__(self, folder: Path, disk: Disk, chance: random.Random) -> None:
        self.step = 0
        self.ends_at = FOR_EVER
        self.faults = 0
        self.picture: Picture | None = None
        self._folder = folder
        self._disk = disk
        self._chance = chance
        self._troubles: list[Trouble] = []

    def trouble(self, begins_in: int) -> None:
        """Let something fail in a while."""
        self._troubles.append(Trouble.draw(self._chance, self.step + begins_in))

    def end(self) -> Picture:
        """End the life here, if it has not ended before."""
        if self.picture is None:
            known = {*self._disk.files, *(f"{name}{INDEX_END}" for name in self._disk.files)}
            others = {path.name: path.read_bytes() for path in self._folder.iterdir() if path.name not in known}
            self.picture = Picture(self._disk.copy(), others)
        return self.picture

    def compare(self) -> None:
        """Make sure that the model has the files as they are."""
        for name, file in self._disk.files.items():
            assert file.content == (self._folder / name).read_bytes(), f"the model of {name} is wrong"

    def decide(self, operation: Operation, path: str, offset: int, length: int) -> Fault | None:
        self.step += 1
        if self.step == self.ends_at:
            self.end()
        if self.picture is not None:
            return Fault(CODES[operation])
        side = "log" if path.endswith(LOG_END) else "database"
        for trouble in self._troubles:
            if trouble.meets(operation, side, self.step):
                trouble.left -= 1
                self.faults += 1
                if operation is Operation.SYNC:
                    self._fail_to_sync(Path(path))
                return Fault(trouble.code, self._cut_short(offset, length) if operation is Operation.WRITE else 0)
        return None

    def _fail_to_sync(self, path: Path) -> None:
        if path.name not in self._disk.files:
            return
        file = self._disk.files[path.name]
        forgets = self._chance.random() < FORGETTING
        with path.open("r+b") as real:
            for start, content in file.fail_to_sync(Luck.draw(self._chance), forgets=forgets):
                real.seek(start)
                real.write(content)

    def _cut_short(self, offset: int, length: int) -> int:
        """Return how much of a write that fails is written: whole blocks of the disk, or nothing."""
        end = self._chance.choice([offset, offset + self._chance.randrange(length)])
        return max(0, end // SECTOR_BYTES * SECTOR_BYTES - offset)

    def opened(self, path: str) -> None:
        self._change(lambda: self._disk.open(Path(path).name))

    def written(self, path: str, offset: int, data: bytes) -> None:
        # Python may also write to files that are none of SQLite's.
        if Path(path).name in self._disk.files:
            self._change(lambda: self._disk.files[Path(path).name].write(offset, data))

    def truncated(self, path: str, size: int) -> None:
        self._change(lambda: self._disk.files[Path(path).name].truncate(size))

    def deleted(self, path: str) -> None:
        self._change(lambda: self._disk.delete(Path(path).name))

    def synced(self, path: str) -> None:
        if Path(path) == self._folder:
            self._change(self._disk.sync_names)
        elif Path(path).name in self._disk.files:
            self._change(lambda: self._disk.sync(Path(path).name))

    def _change(self, change: Callable[[], None]) -> None:
        """Do the same in the model; a dead process may still open a file, which counts for nothing."""
        if self.picture is None:
            change()
