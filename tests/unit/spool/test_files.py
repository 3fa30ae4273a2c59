"""The open files are the ones at their paths, or nothing new is taken."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import SpoolUnavailable
from forebay.spool import writing
from forebay.spool.adoption import Portion
from forebay.spool.files import SpoolFiles
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from unit.pipeline.fakes import commit, make_entries, open_spool, read_rows

ALL = ("", "-wal", "-shm", ".lock")
PLENTY = (10**9, 10**9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))
        yield spool


async def try_to_commit(spool: Spool, transaction: Transaction) -> list[int] | SpoolUnavailable:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    spool.commit(transaction, future.set_result)
    result: list[int] | SpoolUnavailable = await asyncio.wait_for(future, 20)
    return result


def remove(*ends: str) -> Callable[[Path], None]:
    def strike(path: Path) -> None:
        for end in ends:
            path.with_name(f"{path.name}{end}").unlink()

    return strike


def replace_by_copies(path: Path) -> None:
    for end in ("", "-wal"):
        file = path.with_name(f"{path.name}{end}")
        shutil.copy(file, f"{file}.copy")
        Path(f"{file}.copy").rename(file)


def move(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


@pytest.mark.parametrize(
    "strike",
    [remove(""), remove("-wal"), remove(".lock"), remove(*ALL), replace_by_copies, move_folder],
    ids=["database", "log", "lock", "all", "copies", "folder"],
)
async def test_files_that_are_gone_or_replaced_end_the_taking_of_events(
    spool: Spool, path: Path, strike: Callable[[Path], None]
) -> None:
    strike(path)

    refused = await try_to_commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))]))

    assert isinstance(refused, SpoolUnavailable)
    assert "was removed or replaced" in str(refused)
    assert spool.refusal == str(refused)
    # What is there can be delivered and deleted, and nothing of what was refused is among it.
    assert [group.id for group in await spool.load(0, (), PLENTY)] == [1]
    assert isinstance(await try_to_commit(spool, Transaction(deletes=[1])), list)
    with pytest.raises(SpoolUnavailable):
        await spool.adopt(Portion([], [], []), 5)


async def test_whoever_looks_for_requests_every_second_finds_out_without_a_commit(spool: Spool, path: Path) -> None:
    assert spool.refusal == ""
    remove("")(path)

    await spool.take_requests()

    assert str(path) in spool.refusal
    assert "do not end it" in spool.refusal


async def test_a_file_that_goes_while_a_commit_is_written_takes_the_commit_with_it(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = writing.write

    def write_and_lose(*arguments: Any) -> list[int]:
        sizes = write(*arguments)
        remove(".lock")(path)
        return sizes

    monkeypatch.setattr(writing, "write", write_and_lose)

    refused = await try_to_commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))]))

    assert isinstance(refused, SpoolUnavailable)
    assert read_rows(path, "SELECT id FROM groups") == [(1,)], "a 503 means that nothing was taken"


async def test_a_log_that_is_removed_costs_nothing_that_was_answered(spool: Spool, path: Path, tmp_path: Path) -> None:
    remove("-wal")(path)
    await spool.take_requests()

    left = tmp_path / "killed" / "spool.db"
    left.parent.mkdir()
    shutil.copy(path, left)
    assert read_rows(left, "SELECT id FROM groups") == [(1,)]
    assert "restart this server; what the log held is in spool.db now" in spool.refusal


async def test_files_that_are_put_back_are_taken_again(spool: Spool, path: Path) -> None:
    move(path, "elsewhere")
    assert isinstance(await try_to_commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))])), SpoolUnavailable)

    move(path.with_name("elsewhere"), path.name)
    await spool.take_requests()

    assert isinstance(await try_to_commit(spool, Transaction(inserts=[NewGroup(3, make_entries(1))])), list)
    assert spool.refusal == ""


async def test_a_link_that_leads_elsewhere_is_found(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    async with open_spool(link) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))
        link.unlink()
        link.symlink_to(tmp_path / "other.db")

        await spool.take_requests()

        assert str(link) in spool.refusal


def test_files_that_were_moved_aside_are_listed_with_logs_that_are_alone(path: Path) -> None:
    for name in ("aside-1", "aside-1-wal", "aside-1-shm", "aside-2-wal"):
        path.with_name(f"spool.db.{name}").touch()

    assert [file.name for file in SpoolFiles(path).list_aside()] == ["spool.db.aside-1", "spool.db.aside-2-wal"]
