"""A spool is looked into without changing it, whether it is in use, left behind or damaged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from forebay.clock import now_ms
from forebay.doctor import spool_file
from forebay.doctor.spool_file import check_integrity
from forebay.doctor.spool_pending import measure_drain
from forebay.doctor.spool_room import count_file_bytes
from forebay.doctor.spool_state import count_left, find_owner, open_read_only, read_state
from forebay.document import Document, EventInfo, encode_entry
from forebay.errors import SpoolError, SpoolUnavailable, SpoolUnusable
from forebay.history import DeadLetter, History
from forebay.model import Address, Entry
from forebay.spool import database
from forebay.spool.files import PAGE_BYTES
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from unit.cli.running import NOON


def make_entry(log_id: str) -> Entry:
    return encode_entry(
        Address("events_local_2026-11", log_id), Document(NOON, NOON, log_id, "user", EventInfo("/", "a"))
    )


def make_letter(log_id: str, error_type: str) -> DeadLetter:
    return DeadLetter(make_entry(log_id), error_type, "reason", History(1), 1)


def make_group(number: int, events: int) -> NewGroup:
    return NewGroup(number, [make_entry(f"{number}-{event}") for event in range(events)])


def write(path: Path, transaction: Transaction) -> None:
    with contextlib.closing(Store(database.connect(path))) as store:
        store.write(transaction)


def change(path: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement, values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
async def owned(path: Path) -> AsyncIterator[Spool]:
    """Return a spool that its owner has open."""
    spool = Spool(path)
    spool.start(asyncio.get_running_loop())
    yield spool
    spool.close()


async def test_owner_is_found_while_it_has_the_spool_open_and_no_longer(path: Path) -> None:
    assert find_owner(path) is None
    spool = Spool(path)
    assert find_owner(path) == f"pid {os.getpid()}"
    spool.close()
    assert find_owner(path) is None
    # Looking has left it free.
    Spool(path).close()


REFUSED = tuple(enumerate((400, 403, 403)))


async def test_a_reading_shows_the_content(owned: Spool, path: Path) -> None:
    before_ms = now_ms()
    transaction = Transaction(
        inserts=[
            make_group(3, 2),
            *(NewGroup(4 + number, [b"x\n{}\n"], History(refused_status=status)) for number, status in REFUSED),
            make_group(7, 100),
        ],
        dead=[make_letter("a", "rare"), make_letter("b", "often"), make_letter("c", "often"), make_letter("d", "back")],
    )
    future: asyncio.Future[Mapping[int, int] | SpoolUnavailable] = asyncio.get_running_loop().create_future()
    owned.commit(transaction, future.set_result)
    await future
    change(path, "UPDATE dead_letters SET replay = 1 WHERE error_type = 'back'")
    change(path, "INSERT INTO incidents (at_ms, kind, detail) VALUES (?, 'repaired', 'x'), (1, 'old', 'y')", before_ms)

    state = read_state(path)

    assert (state.totals.events, state.totals.dead_letters, state.last_id) == (105, 4, 7)
    assert list(state.refused.items()) == [(403, 2), (400, 1)]
    assert state.dead_types == {"often": 2, "rare": 1}
    assert list(state.dead_types) == ["often", "rare"]
    assert state.incidents == [(before_ms, "repaired", "x")]
    assert state.oldest_at_ms is not None
    assert state.newest_at_ms is not None
    assert before_ms <= state.oldest_at_ms <= state.newest_at_ms <= now_ms()
    assert count_file_bytes(path) > 4096


def test_empty_spool_has_no_times(path: Path) -> None:
    write(path, Transaction())
    state = read_state(path)

    assert (state.oldest_at_ms, state.newest_at_ms, state.last_id, state.dead_types, state.incidents) == (
        None,
        None,
        0,
        {},
        [],
    )


def test_settled_events_are_told_apart_from_new_ones(path: Path) -> None:
    write(path, Transaction(inserts=[make_group(1, 10), make_group(2, 20)]))
    first = read_state(path)
    write(path, Transaction(inserts=[make_group(3, 7)], deletes=[1]))
    second = read_state(path)

    drain = measure_drain(first, second, count_left(path, first.last_id))

    assert (drain.came, drain.settled, drain.left) == (7, 10, 27)


def test_nothing_is_changed_and_nothing_made(path: Path) -> None:
    with pytest.raises(SpoolUnusable, match="there is no database"):
        read_state(path)
    write(path, Transaction(inserts=[make_group(1, 1)]))
    before = path.read_bytes()

    read_state(path)
    check_integrity(path, None)

    assert path.read_bytes() == before
    with pytest.raises(SpoolError, match="readonly"), open_read_only(path) as connection:
        connection.execute("DELETE FROM groups")


def test_other_database_and_no_database_are_refused(path: Path) -> None:
    change(path, "CREATE TABLE events (x)")
    with pytest.raises(SpoolUnusable, match="another program"):
        read_state(path)

    path.write_bytes(b"no database" * 1000)
    with pytest.raises(SpoolError, match="not a database"):
        read_state(path)


def test_whole_file_is_whole(path: Path) -> None:
    write(path, Transaction(inserts=[make_group(1, 100), make_group(2, 1)]))

    assert check_integrity(path, 60) == ([], [], True)


def test_groups_that_cannot_be_read_are_named(path: Path) -> None:
    write(path, Transaction(inserts=[make_group(number, 100) for number in range(1, 4)]))
    change(path, "UPDATE groups SET body = x'00' WHERE id = 2")

    problems, damaged, finished = check_integrity(path, 60)

    assert (problems, finished) == ([], True)
    assert [text[:8] for text in damaged] == ["group 2:"]


def test_damaged_pages_are_found(path: Path) -> None:
    write(path, Transaction(inserts=[make_group(number, 3) for number in range(1, 200)]))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'dead_letters_died_at'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(b"\xff" * PAGE_BYTES)

    assert check_integrity(path, 60).problems


def test_check_ends_when_its_time_is_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, Transaction(inserts=[make_group(number, 3) for number in range(1, 200)]))
    assert not check_integrity(path, 0).finished
    # Within SQLite's own check, too.
    monkeypatch.setattr(spool_file, "STEPS_PER_CLOCK_READING", 1)
    assert check_integrity(path, 0) == ([], [], False)


def test_spool_of_a_newer_version_is_said(path: Path) -> None:
    write(path, Transaction())
    change(path, "PRAGMA user_version = 99")

    with pytest.raises(SpoolUnusable, match="a newer Forebay"):
        read_state(path)
