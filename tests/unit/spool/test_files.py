"""The open files are the ones at their paths, or nothing new is taken."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import EventsTakenBack, SpoolLost, SpoolUnavailable
from forebay.history import History
from forebay.spool.files import SpoolFiles, find_spools, spool_path
from forebay.spool.loading import EVERY
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from unit.pipeline.fakes import PLENTY, commit, make_entries, open_spool, read_rows

ALL = ("", "-wal", "-shm", ".lock")


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))
        yield spool


async def try_to_commit(
    spool: Spool, transaction: Transaction, *, is_awaited: bool = True
) -> list[int] | SpoolUnavailable:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    spool.commit(transaction, future.set_result, [group.id for group in transaction.inserts] if is_awaited else ())
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


def read_without_log(path: Path) -> list[tuple[Any, ...]]:
    """Return the numbers of the groups in the file itself, as a start finds it whose log is gone."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    return read_rows(copy, "SELECT id FROM groups ORDER BY id")


def move(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


@pytest.mark.parametrize(
    "strike",
    [remove(""), remove("-wal"), remove("-shm"), remove(".lock"), remove(*ALL), replace_by_copies, move_folder],
    ids=["database", "log", "index", "lock", "all", "copies", "folder"],
)
async def test_files_that_are_gone_or_replaced_end_the_taking_of_events(
    spool: Spool, path: Path, strike: Callable[[Path], None]
) -> None:
    strike(path)

    refused = await try_to_commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))]))

    assert isinstance(refused, SpoolUnavailable)
    assert "removed or replaced" in str(refused)
    assert spool.refusal == str(refused)


@pytest.mark.parametrize("ends", [("",), ALL])
async def test_without_its_database_the_process_goes_on_with_what_it_has(
    spool: Spool, path: Path, ends: tuple[str, ...]
) -> None:
    remove(*ends)(path)
    await try_to_commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))]))

    # The refused events are not there; the settlements are written.
    assert [group.id for group in await spool.load(0, frozenset(), PLENTY, EVERY)] == [1]
    assert not isinstance(await try_to_commit(spool, Transaction(deletes=[1])), SpoolUnavailable)
    settled = await try_to_commit(spool, Transaction(inserts=[NewGroup(3, make_entries(1))]), is_awaited=False)
    assert not isinstance(settled, SpoolUnavailable)
    assert [group.id for group in await spool.load(0, frozenset(), PLENTY, EVERY)] == [3]


async def test_what_was_settled_in_the_same_commit_is_not_taken_back(spool: Spool, path: Path) -> None:
    first, second, third = make_entries(3)
    await commit(spool, Transaction(inserts=[NewGroup(2, [first, second, third])]))
    remove("")(path)
    parting = Transaction(
        inserts=[NewGroup(3, [second]), NewGroup(4, make_entries(1))], shrinks=[(2, [third], History())], deletes=[1]
    )

    refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    spool.commit(parting, refused.set_result, [4])

    error = await asyncio.wait_for(refused, 20)
    assert isinstance(error, EventsTakenBack)
    assert error.stored_bytes.keys() >= {2, 3}
    left = await spool.load(0, frozenset(), PLENTY, EVERY)
    assert {group.id: group.entries for group in left} == {2: [third], 3: [second]}


@pytest.mark.parametrize("end", ["-wal", "-shm", ".lock"])
async def test_beside_another_log_index_or_lock_nothing_is_written_any_more(spool: Spool, path: Path, end: str) -> None:
    remove(end)(path)
    await try_to_commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))]))
    assert read_without_log(path) == [(1,)]

    assert isinstance(await try_to_commit(spool, Transaction(deletes=[1])), SpoolLost)
    with pytest.raises(SpoolLost):
        await spool.load(0, frozenset(), PLENTY, EVERY)
    assert "restart this server" in spool.refusal


async def test_a_log_that_was_put_in_the_place_of_the_open_one_is_moved_away(spool: Spool, path: Path) -> None:
    log = path.with_name("spool.db-wal")
    older = path.with_name("older")
    shutil.copy(log, older)
    await commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))]))
    older.rename(log)

    await spool.take_requests()

    assert not log.exists()
    (moved,) = SpoolFiles(path).list_moved_away()
    assert moved.name.endswith("-wal")
    assert read_without_log(path) == [(1,), (2,)]


async def test_whoever_looks_for_requests_every_second_finds_out_without_a_commit(spool: Spool, path: Path) -> None:
    assert spool.refusal == ""
    remove("")(path)

    await spool.take_requests()

    assert f"{path.name} in {path.parent}" in spool.refusal
    assert "do not end it" in spool.refusal


async def test_a_file_that_goes_while_a_commit_is_written_takes_the_commit_with_it(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write

    def write_and_lose(*arguments: Any) -> dict[int, int]:
        sizes = write(*arguments)
        remove(".lock")(path)
        return sizes

    monkeypatch.setattr(Store, "write", write_and_lose)

    refused = await try_to_commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))]))

    assert isinstance(refused, SpoolUnavailable)
    assert read_rows(path, "SELECT id FROM groups") == [(1,)], "a 503 means that nothing was taken"


async def test_a_log_that_is_removed_costs_nothing_that_was_answered(spool: Spool, path: Path) -> None:
    remove("-wal")(path)
    await spool.take_requests()

    assert read_without_log(path) == [(1,)]
    assert "everything that was synced is in spool.db: restart this server" in spool.refusal


async def test_files_that_are_put_back_are_taken_again(spool: Spool, path: Path) -> None:
    move(path, "elsewhere")
    assert isinstance(await try_to_commit(spool, Transaction(inserts=[NewGroup(2, make_entries(1))])), SpoolUnavailable)

    move(path.with_name("elsewhere"), path.name)
    await spool.take_requests()

    assert not isinstance(
        await try_to_commit(spool, Transaction(inserts=[NewGroup(3, make_entries(1))])), SpoolUnavailable
    )
    assert spool.refusal == ""


async def test_a_link_that_leads_elsewhere_is_found(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    async with open_spool(link) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))
        link.unlink()
        link.symlink_to(tmp_path / "other.db")

        await spool.take_requests()

        assert "link.db" in spool.refusal


def test_files_that_were_moved_away_are_listed_with_logs_that_are_alone(path: Path) -> None:
    for name in ("moved-1", "moved-1-wal", "moved-1-shm", "moved-2-wal"):
        path.with_name(f"spool.db.{name}").touch()

    assert [file.name for file in SpoolFiles(path).list_moved_away()] == ["spool.db.moved-1", "spool.db.moved-2-wal"]


# -- the spools of several workers


@pytest.mark.parametrize(("number", "name"), [(1, "spool.db"), (2, "spool.2.db"), (12, "spool.12.db")])
def test_each_worker_has_a_file_of_its_own_beside_the_named_one(number: int, name: str) -> None:
    assert spool_path(Path("/data/spool.db"), number) == Path("/data") / name


def test_spools_are_found_by_number_and_nothing_else_is(tmp_path: Path) -> None:
    database = tmp_path / "spool.db"
    for name in ("spool.10.db", "spool.db", "spool.2.db", "spool.1.db", "spool.02.db", "spool.2.db-wal", "spoolx2.db"):
        (tmp_path / name).touch()
    assert find_spools(database) == {1: database, 2: tmp_path / "spool.2.db", 10: tmp_path / "spool.10.db"}


def test_no_spool_is_found_if_there_is_none(tmp_path: Path) -> None:
    assert find_spools(tmp_path / "spool.db") == {}
