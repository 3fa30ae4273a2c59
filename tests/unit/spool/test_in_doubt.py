"""A commit whose sync failed: nobody is told a thing that may turn out wrong, and nothing is built on it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import SpoolInDoubt, SpoolLost, SpoolUnavailable, SpoolUnusable
from forebay.spool import in_doubt
from forebay.spool.beside.inspection import inspect
from forebay.spool.files import SpoolFiles
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from testbed.servers.faulty_vfs import Fault, FaultyFiles, Operation, Policy, faulty_files
from unit.pipeline.fakes import commit, make_entries, open_spool, read_rows, until

SYNC, TRUNCATE, WRITE = Operation.SYNC, Operation.TRUNCATE, Operation.WRITE
CODES = {
    SYNC: sqlite3.SQLITE_IOERR_FSYNC,
    TRUNCATE: sqlite3.SQLITE_IOERR_TRUNCATE,
    WRITE: sqlite3.SQLITE_IOERR_WRITE,
}


class Failing(Policy):
    """Lets steps on the log fail, and hears which were done."""

    def __init__(self) -> None:
        self.failing: set[Operation] = set()
        self.failing_once: set[Operation] = set()
        self.cut_off_with: int | None = None
        self._is_last_frame = False
        self.done: list[str] = []

    def decide(self, operation: Operation, path: str, offset: int, length: int) -> Fault | None:
        del offset
        if self._is_last_frame and self.cut_off_with is not None:
            # All of it is in the file, as it would be if it held the same before.
            return Fault(self.cut_off_with, length)
        if not path.endswith("-wal") or operation not in self.failing | self.failing_once:
            return None
        self.failing_once.discard(operation)
        return Fault(CODES[operation])

    def written(self, path: str, offset: int, data: bytes) -> None:
        del offset
        self._is_last_frame = path.endswith("-wal") and len(data) == 24 and data[4:8] != bytes(4)
        self.done.append(f"write {path.rpartition('-')[2]}")

    def synced(self, path: str) -> None:
        self.done.append(f"sync {path.rpartition('-')[2]}")

    def truncated(self, path: str, size: int) -> None:
        self.done.append(f"truncate {path.rpartition('-')[2]} {size}")


@pytest.fixture
def disk() -> Failing:
    return Failing()


@pytest.fixture(autouse=True)
def files(disk: Failing) -> Iterator[FaultyFiles]:
    with faulty_files(disk) as files:
        yield files


async def try_to_commit(spool: Spool, group_id: int, count: int = 1) -> list[int] | SpoolUnavailable:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    group = NewGroup(group_id, make_entries(count, f"{group_id}-", 800))
    spool.commit(Transaction(inserts=[group]), future.set_result)
    result: list[int] | SpoolUnavailable = await asyncio.wait_for(future, 20)
    return result


def as_killed(path: Path, folder: Path) -> list[int]:
    """Return the groups that the next owner finds if this one is killed now, having looked that nothing is damaged."""
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if file.is_file():
            shutil.copy(file, folder)
    left = folder / path.name
    Spool(left).close()
    assert not SpoolFiles(left).list_moved_away()
    assert read_rows(left, "SELECT kind FROM incidents") == []
    return [group_id for (group_id,) in read_rows(left, "SELECT id FROM groups ORDER BY id")]


@pytest.mark.parametrize("next_events", [0, 1, 30])
async def test_a_commit_that_was_refused_for_a_failed_sync_never_comes_back(
    path: Path, disk: Failing, tmp_path: Path, next_events: int
) -> None:
    async with open_spool(path) as spool:
        await try_to_commit(spool, 1)
        disk.failing_once = {SYNC}

        refused = await try_to_commit(spool, 2, 10)

        assert isinstance(refused, SpoolUnavailable)
        assert not isinstance(refused, SpoolLost)
        there = [1]
        if next_events:
            assert not isinstance(await try_to_commit(spool, 3, next_events), SpoolUnavailable)
            there.append(3)
        assert as_killed(path, tmp_path / "killed") == there
        assert not SpoolFiles(path).doubt.exists()


async def test_who_is_refused_hears_of_it_once_the_log_is_empty_on_the_disk(path: Path, disk: Failing) -> None:
    async with open_spool(path) as spool:
        await try_to_commit(spool, 1)
        disk.failing_once = {SYNC}
        disk.done.clear()

        await try_to_commit(spool, 2)

        assert disk.done[-2:] == ["truncate wal 0", "sync wal"]


@pytest.mark.parametrize("failing", [{SYNC}, {SYNC, TRUNCATE}])
async def test_where_the_log_cannot_be_emptied_nobody_knows_and_nothing_more_is_taken(
    path: Path, disk: Failing, failing: set[Operation]
) -> None:
    heard = asyncio.Event()
    async with open_spool(path) as spool:
        spool.guard(heard.set)
        await try_to_commit(spool, 1)
        disk.failing = failing

        assert isinstance(await try_to_commit(spool, 2), SpoolInDoubt)

        disk.failing = set()
        await asyncio.wait_for(heard.wait(), 10)
        later = await try_to_commit(spool, 3)
        assert isinstance(later, SpoolLost)
        assert not isinstance(later, SpoolInDoubt)
        assert "the disk failed in a commit" in spool.refusal
        assert SpoolFiles(path).doubt.exists()
    assert {group_id for (group_id,) in read_rows(path, "SELECT id FROM groups")} <= {1, 2}


async def test_a_start_after_that_has_the_log_on_the_disk_before_it_counts(path: Path, disk: Failing) -> None:
    async with open_spool(path) as spool:
        await try_to_commit(spool, 1)
        files = SpoolFiles(path)
        killed = path.parent / "killed"
        killed.mkdir()
        for file in (files.database, files.wal, files.lock):
            shutil.copy(file, killed)
    left = SpoolFiles(killed / path.name)
    left.doubt.touch()
    disk.failing = {SYNC}

    with pytest.raises(SpoolUnusable, match="Input/output error"):
        Spool(left.path)
    assert left.doubt.exists()
    with pytest.raises(SpoolUnusable, match="failed; restart the server, which mends it"), inspect(left.path):
        pass

    disk.failing = set()
    disk.done.clear()
    with contextlib.closing(Spool(left.path)) as next_spool:
        assert disk.done[:2] == ["write wal", "sync wal"]
        assert next_spool.totals.groups == 1
    assert not left.doubt.exists()


async def test_a_commit_that_could_not_be_written_to_its_end_is_refused_without_further_ado(
    path: Path, disk: Failing, tmp_path: Path
) -> None:
    async with open_spool(path) as spool:
        await try_to_commit(spool, 1)
        disk.failing = {WRITE, TRUNCATE}

        refused = await try_to_commit(spool, 2)

        assert isinstance(refused, SpoolUnavailable)
        assert not isinstance(refused, SpoolLost)
        disk.failing = set()
        assert as_killed(path, tmp_path / "killed") == [1]
        assert not isinstance(await try_to_commit(spool, 3), SpoolUnavailable)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL])
async def test_a_commit_that_is_whole_in_the_log_though_it_was_cut_off_never_comes_back(
    path: Path, disk: Failing, tmp_path: Path, code: int
) -> None:
    async with open_spool(path) as spool:
        await try_to_commit(spool, 1)
        disk.cut_off_with = code

        refused = await try_to_commit(spool, 2)

        assert isinstance(refused, SpoolUnavailable)
        assert not isinstance(refused, SpoolLost)
        disk.cut_off_with = None
        assert as_killed(path, tmp_path / "killed") == [1]


async def test_a_check_of_the_whole_file_does_not_keep_the_log_from_being_emptied(
    path: Path, disk: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def read_for_ever(connection: sqlite3.Connection) -> str:
        begun.set()
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n, groups"
        )
        raise AssertionError("it ends by an interruption only")

    monkeypatch.setattr("forebay.spool.rescue.damage.check", read_for_ever)
    async with open_spool(path) as spool:
        await try_to_commit(spool, 1)
        spool.guard(lambda: None)
        await until(begun.is_set)
        disk.failing_once = {SYNC}

        refused = await try_to_commit(spool, 2)

        assert isinstance(refused, SpoolUnavailable)
        assert not isinstance(refused, SpoolLost)


@pytest.mark.parametrize(
    ("error", "may_be"),
    [
        (MemoryError(), True),
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_IOERR_SHMSIZE, True),
        (sqlite3.SQLITE_IOERR_SHMMAP, True),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_IOERR_READ, False),
        (sqlite3.SQLITE_IOERR_SHORT_READ, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, False),
        (ValueError(), False),
    ],
)
def test_which_failures_leave_it_open_whether_a_commit_is_in_the_log(error: Exception | int, may_be: bool) -> None:  # noqa: FBT001
    if isinstance(error, int):
        code, error = error, sqlite3.OperationalError("an error")
        error.sqlite_errorcode = code
    assert in_doubt.may_be_committed(error) is may_be


async def test_a_sync_that_fails_while_the_owner_ends_leaves_the_log_to_the_next_one(path: Path, disk: Failing) -> None:
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))
        disk.failing = {SYNC}
    assert SpoolFiles(path).wal.exists(), "it is not deleted before its commits are in the database"

    disk.failing = set()
    with contextlib.closing(Spool(path)) as next_spool:
        assert next_spool.totals.groups == 1
    assert not SpoolFiles(path).wal.exists()
    assert read_rows(path, "SELECT kind FROM incidents") == []


async def test_a_start_syncs_what_a_killed_process_left_in_the_log_before_it_writes(
    path: Path, disk: Failing, tmp_path: Path
) -> None:
    async with open_spool(path) as spool:
        await try_to_commit(spool, 1)
        left = shutil.copytree(path.parent, tmp_path / "left") / path.name
    disk.failing = {SYNC}
    with pytest.raises(SpoolUnusable):
        Spool(left)
    assert SpoolFiles(left).doubt.exists()

    SpoolFiles(left).doubt.unlink()
    disk.failing = set()
    disk.done.clear()
    with contextlib.closing(Spool(left)) as spool:
        assert disk.done[0] == "sync wal"
        assert spool.totals.groups == 1
