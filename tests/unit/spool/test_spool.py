"""One thread does all work on a spool in order, and nothing is taken that could not be kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import SpoolUnavailable
from forebay.spool import reserve
from forebay.spool.files import SpoolFiles
from forebay.spool.loading import EVERY
from forebay.spool.records import NewGroup, StoredGroup, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from unit.pipeline.fakes import PLENTY, commit, make_entries, make_entry, open_spool, read_rows, settle_down, until


async def try_to_commit(spool: Spool, transaction: Transaction) -> Mapping[int, int] | SpoolUnavailable:
    future: asyncio.Future[Mapping[int, int] | SpoolUnavailable] = asyncio.get_running_loop().create_future()
    spool.commit(transaction, future.set_result)
    return await asyncio.wait_for(future, 5)


async def pragma(spool: Spool, text: str) -> Any:
    """Do a PRAGMA on the owner's connection; return its result, None if it has none."""
    row = await spool.call(lambda store: store.connection.execute(f"PRAGMA {text}").fetchone())
    return row and row[0]


async def test_a_commit_is_synced_before_it_is_reported(spool: Spool) -> None:
    names = ("synchronous", "journal_mode", "auto_vacuum")

    assert [await pragma(spool, name) for name in names] == [2, "wal", 2]


async def test_a_commit_waits_for_a_command_that_writes_and_fails_when_that_takes_too_long(
    spool: Spool, path: Path
) -> None:
    await pragma(spool, "busy_timeout = 20")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as command:
        command.execute("BEGIN IMMEDIATE")
        result = await try_to_commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))
        assert isinstance(result, SpoolUnavailable)
        assert "locked" in str(result)
        command.execute("COMMIT")

    await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))


async def test_a_disk_that_was_full_takes_nothing_after_a_start_before_it_has_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk = reserve.Reserve(SpoolFiles(path).reserve)
    full_disk.take()
    full_disk.give_up("full")
    monkeypatch.setattr(reserve, "LEFT_BYTES_MIN", 2**62)
    monkeypatch.setattr(reserve, "TRY_EVERY_S", 0)

    async with open_spool(path) as spool:
        spool.guard(lambda: None)
        await spool.take_requests()
        result = await try_to_commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))
        assert str(result) == spool.refusal == "the disk is full"

        monkeypatch.setattr(reserve, "LEFT_BYTES_MIN", 0)
        await spool.take_requests()
        await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))


async def test_a_full_disk_refuses_and_deletions_make_room_again(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve, "RESERVE_BYTES", 4096)
    monkeypatch.setattr(reserve, "TRY_EVERY_S", 0)
    bodies = [[make_entry(f"{number}{os.urandom(10_000).hex()}")] for number in range(10)]
    await commit(spool, Transaction(inserts=[NewGroup(number, body) for number, body in enumerate(bodies, 1)]))
    ((pages,),) = read_rows(path, "PRAGMA page_count")
    await pragma(spool, f"max_page_count = {pages}")

    result = await try_to_commit(spool, Transaction(inserts=[NewGroup(11, bodies[0])]))
    assert isinstance(result, SpoolUnavailable)
    assert "full" in str(result)
    assert not await spool.call(lambda store: store.connection.in_transaction)

    await commit(spool, Transaction(deletes=[3, 4]))
    assert spool.refusal == "the disk is full"
    await spool.take_requests()
    assert spool.refusal == ""
    await commit(spool, Transaction(inserts=[NewGroup(11, bodies[0])]))
    left = {group.id for group in await spool.load(0, frozenset(), PLENTY)}
    assert left == {1, 2, 5, 6, 7, 8, 9, 10, 11}


async def test_the_note_of_the_owner_leaves_commits_synced(path: Path) -> None:
    async with open_spool(path) as spool:
        assert await pragma(spool, "synchronous") == 2


# -- the thread


async def test_answers_come_in_the_order_of_the_questions(spool: Spool) -> None:
    heard: list[str] = []

    async def load() -> list[StoredGroup]:
        groups = await spool.load(0, frozenset(), PLENTY, EVERY)
        heard.append("load")
        return groups

    spool.commit(Transaction(inserts=[NewGroup(1, make_entries(1))]), lambda _: heard.append("first"))
    loading = asyncio.create_task(load())
    await asyncio.sleep(0)
    spool.commit(Transaction(inserts=[NewGroup(2, make_entries(1))]), lambda _: heard.append("second"))

    assert [group.id for group in await loading] == [1]
    await until(lambda: len(heard) == 3)
    assert heard[0] == "first"


async def test_whoever_no_longer_waits_disturbs_nobody(spool: Spool) -> None:
    loading = asyncio.create_task(spool.load(0, frozenset(), PLENTY, EVERY))
    await asyncio.sleep(0)
    loading.cancel()

    await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))]))
    assert loading.cancelled()


async def test_any_failure_of_a_piece_of_work_reaches_who_waits(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Store, "write", fail)
    result = await try_to_commit(spool, Transaction(deletes=[1]))

    assert isinstance(result, SpoolUnavailable)
    assert isinstance(result.__cause__, MemoryError)
    assert await spool.load(0, frozenset(), PLENTY, EVERY) == [], "the thread goes on"


async def test_closing_finishes_what_was_asked_for(path: Path) -> None:
    spool = Spool(path)
    spool.start(asyncio.get_running_loop())
    heard: list[object] = []
    for row_id in range(1, 51):
        spool.commit(Transaction(inserts=[NewGroup(row_id, make_entries(1))]), heard.append)

    spool.close()
    spool.close()

    assert read_rows(path, "SELECT count(*) FROM groups") == [(50,)]
    await settle_down()
    assert len(heard) == 50


def test_a_spool_that_was_not_started_can_be_closed(path: Path) -> None:
    Spool(path).close()
    Spool(path).close()
