"""A spool of an older version is brought up to date with everything in it, or stays as it was."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import SpoolUnusable
from forebay.model import History, join_entries
from forebay.spool import database, statements
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.codec import BodyCodec
from forebay.spool.records import EVERY, Totals
from unit.pipeline.fakes import make_entries, make_entry, open_spool, read_rows

PLENTY = (10**9, 10**9)
GROUPS = {3: make_entries(1, "alone"), 4: make_entries(500, "many", 300), 9: [make_entry("giant", 200_000)]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a spool as version 1 of the schema left it."""
    path = tmp_path / "spool" / "spool.db"
    path.parent.mkdir()
    codec = BodyCodec()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; "
            f"BEGIN; {statements.SCHEMA[0]} PRAGMA application_id = {database.APPLICATION_ID}; "
            "PRAGMA user_version = 1; COMMIT;"
        )
        for row_id, entries in GROUPS.items():
            body = join_entries(entries)
            kept_as, kept = codec.pack(body)
            connection.execute(
                "INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (row_id, len(entries), len(body), len(kept), row_id % 3, 1000 + row_id, int(kept_as), kept),
            )
        connection.executemany(
            "INSERT INTO dead_letters VALUES (?, ?, ?, 'type', 'reason', 2, ?, ?, ?)",
            [(n, "index", f"dead{n}", 5000 + n, n % 2, make_entry(f"dead{n}", 100 + n)) for n in range(1, 4)],
        )
        connection.execute("INSERT INTO requests VALUES ('replay', 1)")
        connection.commit()
    return path


def dump(path: Path) -> list[tuple[Any, ...]]:
    """Return everything that version 1 knew."""
    return [
        *read_rows(path, "SELECT id, events, body_bytes, stored_bytes, attempts, received_at_ms, body FROM groups"),
        *read_rows(path, "SELECT id, index_name, log_id, attempts, died_at_ms, replay, entry FROM dead_letters"),
        *read_rows(path, "SELECT name, asked_at_ms FROM requests"),
    ]


async def test_everything_of_version_1_is_there_in_version_2(path: Path) -> None:
    before = dump(path)

    async with open_spool(path) as spool:
        assert dump(path) == before
        groups = await spool.load(0, frozenset(), PLENTY, EVERY)
        assert {group.id: group.entries for group in groups} == GROUPS
        assert [group.history for group in groups] == [History(0), History(1), History(0)]
        stored_bytes = sum(group.stored_bytes for group in groups)
        assert spool.totals == Totals(3, 502, stored_bytes, 3, 101 + 102 + 103 + 3 * len("reason"))
        with inspect(path) as view:
            assert [letter.history for letter in view.list_dead(Choice(), 10)] == [History(2)] * 3
        assert await spool.take_requests() == {"replay"}
        assert (await spool.replay(10, 10))[0] == 2
    assert read_rows(path, "PRAGMA user_version") == [(2,)]
    assert read_rows(path, "PRAGMA integrity_check") == [("ok",)]


def schema_of(path: Path) -> list[tuple[Any, ...]]:
    return read_rows(path, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")


async def test_a_file_that_was_brought_up_to_date_has_the_schema_of_a_new_one(path: Path, tmp_path: Path) -> None:
    database.connect(path).close()
    database.connect(tmp_path / "new.db").close()

    assert schema_of(path) == schema_of(tmp_path / "new.db")


def test_a_crash_at_any_moment_leaves_the_old_version_whole_or_the_new_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(path)
    snapshots: list[Path] = []

    def snapshot(_statement: str) -> None:
        """Keep the folder as a killed process would leave it."""
        snapshots.append(tmp_path / f"snapshot{len(snapshots)}")
        shutil.copytree(path.parent, snapshots[-1])

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", watching(sqlite3.connect, snapshot))
        database.connect(path).close()

    versions = [read_rows(folder / path.name, "PRAGMA user_version")[0][0] for folder in snapshots]
    assert versions == sorted(versions)
    assert versions.count(1) > 10, "the statements of the migration were watched"
    for folder, version in zip(snapshots, versions, strict=True):
        columns = {name for _, name, *_ in read_rows(folder / path.name, "PRAGMA table_info(groups)")}
        assert ("strikes" in columns) == (version == 2)
        database.connect(folder / path.name).close()
        assert dump(folder / path.name) == before
        assert read_rows(folder / path.name, "SELECT events, dead_letters FROM totals") == [(502, 3)]


def watching(connect: Callable[..., sqlite3.Connection], hear: Callable[[str], None]) -> Callable[..., Any]:
    def connect_and_watch(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(hear)
        return connection

    return connect_and_watch


def test_a_migration_that_fails_leaves_the_old_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(path)
    with monkeypatch.context() as patch:
        patch.setattr(
            database,
            "SCHEMA",
            (statements.SCHEMA[0], f"{statements.SCHEMA[1]}\nINSERT INTO totals VALUES (1, 0, 0, 0, 0, 0);"),
        )
        with pytest.raises(SpoolUnusable, match="UNIQUE"):
            database.connect(path)

    assert dump(path) == before
    assert read_rows(path, "PRAGMA user_version") == [(1,)]
    database.connect(path).close()
    assert dump(path) == before


def test_a_command_leaves_an_older_version_to_the_server(path: Path) -> None:
    with pytest.raises(SpoolUnusable, match="start the server, which brings it up to date"):
        database.connect_beside(path)

    assert read_rows(path, "PRAGMA user_version") == [(1,)]


def test_times_of_attempts_are_json(path: Path) -> None:
    database.connect(path).close()

    assert [json.loads(times) for (times,) in read_rows(path, "SELECT attempted_at_ms FROM groups")] == [[], [], []]
