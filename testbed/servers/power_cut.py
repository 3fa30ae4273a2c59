"""Makes the files that a power cut leaves of a SQLite database with a write-ahead log, from copies.

All synced bytes are there. Behind them a part of the bytes being written may be there, in pieces of any size
(https://sqlite.org/atomiccommit.html, section 2; the log's format: https://sqlite.org/fileformat2.html, section 4).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forebay.spool.files import PAGE_BYTES

LOG_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
SECTOR_BYTES = 512


class Files(NamedTuple):
    """The database and its log; the index of the log (`-shm`) is memory that no power cut leaves."""

    database: bytes
    log: bytes

    @classmethod
    def read(cls, path: Path) -> Files:
        log = path.with_name(f"{path.name}-wal")
        return cls(path.read_bytes() if path.exists() else b"", log.read_bytes() if log.exists() else b"")

    def write(self, path: Path) -> None:
        path.write_bytes(self.database)
        path.with_name(f"{path.name}-wal").write_bytes(self.log)

    @property
    def synced_end(self) -> int:
        """The offset at which the last commit ends in the log."""
        salts = self.log[16:24]
        end = LOG_HEADER_BYTES if self.log else 0
        for start in range(LOG_HEADER_BYTES, len(self.log), FRAME_HEADER_BYTES + PAGE_BYTES):
            header = self.log[start : start + FRAME_HEADER_BYTES]
            if header[8:16] != salts:
                break
            if header[4:8] != bytes(4):
                end = start + FRAME_HEADER_BYTES + PAGE_BYTES
        return end


def cut_commit(before: Files, after: Files, chance: random.Random) -> Iterator[Files]:
    """Return the files left if the power goes while a commit is written; all commits before it are there."""
    # A log that was begun anew holds nothing that is not in the database already.
    synced = before.synced_end if before.log[:LOG_HEADER_BYTES] == after.log[:LOG_HEADER_BYTES] else 0
    end = after.synced_end
    if end <= synced:
        return
    frames = range(synced, end, FRAME_HEADER_BYTES + PAGE_BYTES) if synced else ()
    for cut in {*chance.sample(frames, min(2, len(frames))), chance.randrange(synced, end)}:
        yield Files(before.database, after.log[:cut])
        # The disk may write in another order.
        hole = chance.randrange(synced, end)
        torn = after.log[:hole] + bytes(SECTOR_BYTES) + after.log[hole + SECTOR_BYTES :]
        yield Files(before.database, torn[: len(after.log)])


def cut_checkpoint(before: Files, after: Files, chance: random.Random) -> Iterator[Files]:
    """Return the files that are left if the power goes while the log is copied into the database."""
    # The log of a database that was closed is gone, and one that was begun anew is about something else.
    is_same_log = after.log and before.log[:LOG_HEADER_BYTES] == after.log[:LOG_HEADER_BYTES]
    if before.database == after.database or not is_same_log:
        return
    for _ in range(2):
        pages = bytearray(after.database)
        for start in range(0, min(len(before.database), len(pages)), PAGE_BYTES):
            whole = min(PAGE_BYTES, len(before.database) - start)
            kept = chance.choice([0, whole, chance.randrange(0, whole, SECTOR_BYTES)])
            pages[start : start + kept] = before.database[start : start + kept]
        yield Files(bytes(pages), after.log)
