"""Opening a spool takes the same work however much is in it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from forebay.history import DeadLetter, History
from forebay.spool import database
from forebay.spool.records import NewGroup, Totals, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from unit.pipeline.fakes import make_entry


def fill(path: Path, rows: int) -> Path:
    inserts = [NewGroup(row_id, [make_entry(f"{row_id}", 300)]) for row_id in range(1, rows + 1)]
    dead = [DeadLetter(make_entry(f"dead{number}", 300), "type", "reason", History(1), 1000) for number in range(rows)]
    with contextlib.closing(Store(database.connect(path))) as store:
        store.connection.execute("PRAGMA synchronous = OFF")
        store.write(Transaction(inserts=inserts, dead=dead))
    return path


def count_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Totals]:
    """Open a spool; return the number of steps of SQLite's machine, and the totals."""
    steps = 0
    connect = sqlite3.connect

    def count_step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def connect_and_count(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_progress_handler(count_step, 1)
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_and_count)
        with contextlib.closing(Spool(path)) as spool:
            return steps, spool.totals


def test_the_work_of_opening_does_not_grow_with_what_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, few = count_steps(fill(tmp_path / "small.db", 100), monkeypatch)
    large, many = count_steps(fill(tmp_path / "large.db", 10_000), monkeypatch)

    assert (few.events, few.dead_letters, many.events, many.dead_letters) == (100, 100, 10_000, 10_000)
    assert 0 < large <= small + 10


def leave_log(path: Path, megabytes: int) -> Path:
    """Leave a spool as a killed owner does beside which somebody read for long: with a log of that size."""
    source = path.with_name(f"source-{path.name}")
    entries = [make_entry("a", 1000)] * 10
    with (
        contextlib.closing(database.connect(source)) as connection,
        contextlib.closing(sqlite3.connect(source)) as reader,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM groups").fetchone()
        connection.execute("PRAGMA synchronous = OFF")
        for first in range(0, 100 * megabytes, 1000):
            # Not compressed, so that the log grows by the size of the entries.
            rows = [(row_id, b"".join(entries)) for row_id in range(first + 1, first + 1001)]
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO groups VALUES (?, 10, 10000, 10000, 0, 0, 0, '[]', 'index', 0, 0, 0, ?)",
                rows,
            )
            connection.execute("COMMIT")
        for side in ("", "-wal"):
            shutil.copy(f"{source}{side}", f"{path}{side}")
    return path


def measure_opening(path: Path) -> tuple[int, int]:
    """Open a spool; return how many groups it holds, and how many bytes Python had in hand at the most."""
    tracemalloc.start()
    try:
        with contextlib.closing(Spool(path)) as spool:
            return spool.totals.groups, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_opening_takes_the_same_memory_however_large_the_log_is(tmp_path: Path) -> None:
    few, small_bytes = measure_opening(leave_log(tmp_path / "small.db", 10))
    many, large_bytes = measure_opening(leave_log(tmp_path / "large.db", 80))

    assert (few, many) == (1000, 8000)
    assert large_bytes < small_bytes + 100_000
