"""A spool with everything in it that a real one has, and ways to damage it."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from forebay.history import DeadLetter, History
from forebay.model import Entry
from forebay.spool import database
from forebay.spool.beside.connecting import connect_beside
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.codec import GroupCodec
from forebay.spool.files import PAGE_BYTES
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.statements import SQL
from forebay.spool.store import Store
from forebay.spool.wal import FRAME_BYTES, HEADER_BYTES
from unit.pipeline.fakes import make_entry

OWNED = "pid 1\nopened\n"
ENDED = f"{OWNED}closed\n"


class Contents(NamedTuple):
    """The contents of a spool."""

    groups: dict[int, list[Entry]]
    dead: dict[str, Entry]


def fill(path: Path, groups: int = 400) -> Contents:
    """Make a spool of mixed sizes with deleted and shrunk groups, and leave it as an owner does that ended in order."""
    chance = random.Random(groups)
    rows: dict[int, list[Entry]] = {}
    letters = [make_letter(f"dead{number}") for number in range(40)]
    with contextlib.closing(Store(database.connect(path))) as store:
        # Some builds of SQLite wipe deleted rows; most leave them in place.
        store.connection.execute("PRAGMA secure_delete = OFF")
        for row_id in range(1, groups + 1):
            rows[row_id] = make_body(chance, row_id)
            store.write(Transaction(inserts=[NewGroup(row_id, rows[row_id], History(1, (row_id,)))]))
        gone = [row_id for row_id in rows if chance.random() < 0.4 or groups // 4 < row_id < groups // 2]
        shrunk = [row_id for row_id, body in rows.items() if len(body) > 1 and row_id not in gone]
        for row_id in gone:
            del rows[row_id]
        rows |= {row_id: rows[row_id][1:] for row_id in shrunk}
        shrinks: list[tuple[int, Sequence[Entry], History]] = [
            (row_id, rows[row_id], History(2, (row_id, 2))) for row_id in shrunk
        ]
        store.write(Transaction(deletes=gone, shrinks=shrinks, dead=letters))
    path.with_name(f"{path.name}.lock").write_text(ENDED)
    return Contents(rows, {f"dead{number}": letter.entry for number, letter in enumerate(letters)})


def make_letter(log_id: str) -> DeadLetter:
    return DeadLetter(make_entry(log_id, 300), "type", "reason", History(2, (1, 2)), 1000)


def make_body(chance: random.Random, row_id: int) -> list[Entry]:
    size = chance.choice([100, 200, 800, 6000])
    events = chance.choice([1, 1, 1, 5, 60]) if size < 500 else 1
    return [make_entry(f"{row_id}-{n}-{chance.randbytes(20).hex()}", 0 if size < 800 else size) for n in range(events)]


def page_count(path: Path) -> int:
    return path.stat().st_size // PAGE_BYTES


def overwrite_page(path: Path, number: int) -> None:
    overwrite(path, (number - 1) * PAGE_BYTES, random.Random(number).randbytes(PAGE_BYTES))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def frame_count(path: Path) -> int:
    return (wal_of(path).stat().st_size - HEADER_BYTES) // FRAME_BYTES


def frame_offset(number: int) -> int:
    """Return the offset of a frame; frames are numbered from 1."""
    return HEADER_BYTES + (number - 1) * FRAME_BYTES


def leave_behind(path: Path, folder: Path) -> Path:
    """Copy a spool that somebody has open to a folder, as a process that is killed leaves it; return its path there."""
    folder.mkdir()
    for side in ("", "-wal"):
        shutil.copy(f"{path}{side}", folder / f"{path.name}{side}")
    (folder / f"{path.name}.lock").write_text(OWNED)
    return folder / path.name


def copy(path: Path, folder: Path) -> Path:
    """Copy a spool that nobody has open to a folder; return its path there."""
    folder.mkdir()
    for name in (path.name, f"{path.name}.lock"):
        shutil.copy(path.with_name(name), folder / name)
    return folder / path.name


def read_contents(path: Path) -> Contents:
    """Read the contents of a spool, as a command does."""
    with inspect(path) as view:
        dead = {letter.log_id: letter.entry for letter in view.list_dead(Choice(), 10_000)}
    with contextlib.closing(connect_beside(path)) as connection:
        ids = [row_id for (row_id,) in connection.execute("SELECT id FROM groups")]
        return Contents({row_id: read_group(connection, row_id) for row_id in ids}, dead)


def read_group(connection: sqlite3.Connection, row_id: int) -> list[Entry]:
    return GroupCodec().read_group(connection.execute(SQL["load_group"], (row_id,)).fetchone()).entries
