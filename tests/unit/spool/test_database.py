"""A spool's file is opened with settings that keep every commit, and nobody else's file is touched."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import SpoolUnusable
from forebay.spool import database
from forebay.spool.beside.connecting import connect_beside, reading
from forebay.spool.files import PAGE_BYTES
from forebay.spool.spool import Spool
from forebay.spool.statements import SCHEMA
from unit.pipeline.fakes import read_rows

TABLES = {"groups", "dead_letters", "requests", "totals", "incidents", "clock_samples"}
STEP = "ALTER TABLE requests ADD COLUMN by_whom TEXT NOT NULL DEFAULT 'somebody'; CREATE TABLE extra (id INTEGER);"
"""A made-up second version of the schema."""
FAILING_STEP = STEP.replace("extra", "groups")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "spool.db"


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def tables(connection: sqlite3.Connection) -> set[str]:
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {name for (name,) in names}


def make_database(path: Path, script: str) -> bytes:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path.read_bytes()


def assert_refused_and_untouched(path: Path, content: bytes, match: str) -> None:
    before = sorted(path.parent.iterdir())
    for connect in (database.connect, connect_beside):
        with pytest.raises(SpoolUnusable, match=match) as caught:
            connect(path)
        assert str(caught.value).startswith(f"DATABASE_URL: {path} ")
        assert path.read_bytes() == content
        assert sorted(path.parent.iterdir()) == before


def test_a_new_file_gets_schema_version_and_settings(path: Path) -> None:
    with contextlib.closing(database.connect(path)) as connection:
        assert tables(connection) == TABLES
        assert pragma(connection, "application_id") == database.APPLICATION_ID
        assert pragma(connection, "user_version") == 1
        assert pragma(connection, "synchronous") == 2
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "auto_vacuum") == 2
        assert pragma(connection, "page_size") == PAGE_BYTES
        assert pragma(connection, "secure_delete") == 2
        assert pragma(connection, "journal_size_limit") == database.WAL_BYTES_KEPT


def test_a_file_of_its_own_is_opened_again_with_the_same_settings(path: Path) -> None:
    database.connect(path).close()

    with contextlib.closing(database.connect(path)) as connection:
        assert tables(connection) == TABLES
        assert (pragma(connection, "synchronous"), pragma(connection, "auto_vacuum")) == (2, 2)
        assert pragma(connection, "wal_autocheckpoint") == database.WAL_PAGES_BEFORE_CHECKPOINT


def test_an_empty_file_becomes_a_spool(path: Path) -> None:
    path.touch()

    with contextlib.closing(database.connect(path)) as connection:
        assert tables(connection) == TABLES
        assert pragma(connection, "auto_vacuum") == 2


def test_a_database_of_another_program_is_refused_and_untouched(path: Path) -> None:
    content = make_database(path, "CREATE TABLE customers (name TEXT); INSERT INTO customers VALUES ('Ada');")

    assert_refused_and_untouched(path, content, "another program")


def test_a_database_that_says_it_is_of_another_program_is_refused_and_untouched(path: Path) -> None:
    content = make_database(path, "PRAGMA application_id = 7; CREATE TABLE groups (id INTEGER PRIMARY KEY);")

    assert_refused_and_untouched(path, content, "another program")


def test_a_newer_version_is_refused_and_untouched(path: Path) -> None:
    database.connect(path).close()
    content = make_database(path, "PRAGMA journal_mode = DELETE; PRAGMA user_version = 2;")

    assert_refused_and_untouched(path, content, "newer Forebay.*version 2, this one knows 1")


def test_a_file_that_is_no_database_is_refused_and_untouched(path: Path) -> None:
    content = b"no database, but somebody's notes\n" * 100
    path.write_bytes(content)

    assert_refused_and_untouched(path, content, "cannot be (opened|read): file is not a database")


def test_a_spool_whose_tables_are_missing_is_refused_and_given_up(path: Path) -> None:
    make_database(
        path,
        f"PRAGMA application_id = {database.APPLICATION_ID}; PRAGMA user_version = 1; CREATE TABLE other (id INTEGER);",
    )

    for _ in range(2):
        with pytest.raises(SpoolUnusable, match=r"cannot be opened: no such table: groups"):
            Spool(path)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnusable, match=f"DATABASE_URL: {tmp_path} cannot be opened"):
        database.connect(tmp_path)


def test_a_command_makes_no_database(path: Path) -> None:
    with pytest.raises(SpoolUnusable, match="there is no database at"):
        connect_beside(path)
    assert not path.exists()


def watch_sqlite(patch: pytest.MonkeyPatch, folder: Path) -> list[Path]:
    """Copy a folder before each of SQLite's statements, as a process leaves it that is killed then."""
    snapshots: list[Path] = []
    connect = sqlite3.connect

    def snapshot(_statement: str) -> None:
        snapshots.append(folder.with_name(f"snapshot{len(snapshots)}"))
        shutil.copytree(folder, snapshots[-1])

    def connect_and_watch(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(snapshot)
        return connection

    patch.setattr(sqlite3, "connect", connect_and_watch)
    return snapshots


def test_a_crash_at_any_moment_leaves_a_whole_schema_or_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        snapshots = watch_sqlite(patch, path.parent)
        database.connect(path).close()
    whole, empty = 0, 0
    for folder in snapshots:
        with contextlib.closing(sqlite3.connect(folder / path.name)) as connection:
            found = (tables(connection), pragma(connection, "application_id"), pragma(connection, "user_version"))
        assert found in ((TABLES, database.APPLICATION_ID, 1), (set(), 0, 0))
        empty += not found[0]
        with contextlib.closing(database.connect(folder / path.name)) as connection:
            whole += tables(connection) == TABLES
            assert pragma(connection, "auto_vacuum") == 2
    assert whole == len(snapshots)
    assert empty > 10, "the statements of the schema were watched"


def test_a_schema_that_cannot_be_made_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "SCHEMA", (f"{SCHEMA[0]}\nCREATE TABLE groups (id INTEGER);",))
        with pytest.raises(SpoolUnusable, match="already exists"):
            database.connect(path)

    with contextlib.closing(database.connect(path)) as connection:
        assert tables(connection) == TABLES


# -- an older version


@pytest.fixture
def old(path: Path) -> Path:
    """Return a spool of version 1 with something in it."""
    with contextlib.closing(database.connect(path)) as connection:
        connection.execute("INSERT INTO requests VALUES ('retry', 5)")
    return path


def test_the_owner_brings_an_older_version_up_to_date_with_all_that_is_in_it(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SCHEMA", (*SCHEMA, STEP))

    for _ in range(2):
        Spool(old).close()

    assert read_rows(old, "SELECT * FROM requests") == [("retry", 5, "somebody")]
    assert read_rows(old, "PRAGMA user_version") == [(2,)]


def test_a_crash_at_any_moment_leaves_the_older_version_whole_or_the_newer_one(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SCHEMA", (*SCHEMA, STEP))
    with monkeypatch.context() as patch:
        snapshots = watch_sqlite(patch, old.parent)
        database.connect(old).close()

    versions = [read_rows(folder / old.name, "PRAGMA user_version")[0][0] for folder in snapshots]
    assert versions == sorted(versions)
    assert versions.count(1) > 5, "the statements of the step were watched"
    for folder, version in zip(snapshots, versions, strict=True):
        columns = [name for _, name, *_ in read_rows(folder / old.name, "PRAGMA table_info(requests)")]
        assert ("by_whom" in columns) == (version == 2)
        database.connect(folder / old.name).close()
        assert read_rows(folder / old.name, "SELECT * FROM requests") == [("retry", 5, "somebody")]


def test_a_step_that_fails_leaves_the_older_version(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "SCHEMA", (*SCHEMA, FAILING_STEP))
        with pytest.raises(SpoolUnusable, match="already exists"):
            database.connect(old)

    assert read_rows(old, "SELECT * FROM requests") == [("retry", 5)]
    assert read_rows(old, "PRAGMA user_version") == [(1,)]
    database.connect(old).close()


@pytest.mark.parametrize("connect", [connect_beside, lambda path: reading(path).__enter__()])
def test_a_command_leaves_an_older_version_to_the_server(
    old: Path, monkeypatch: pytest.MonkeyPatch, connect: Callable[[Path], object]
) -> None:
    monkeypatch.setattr(database, "SCHEMA", (*SCHEMA, STEP))

    with pytest.raises(SpoolUnusable, match="start the server, which brings it up to date"):
        connect(old)

    assert read_rows(old, "PRAGMA user_version") == [(1,)]
