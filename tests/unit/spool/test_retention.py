"""Dead letters go when their time is up, and the room that was freed goes back to the file system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.errors import SpoolUnavailable
from forebay.model import DeadLetter, History
from forebay.spool import retention, writing
from forebay.spool.inspection import Choice, inspect
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from unit.pipeline.fakes import commit, make_entry, open_spool, read_rows, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    async with open_spool(path) as spool:
        yield spool


def make_letter(log_id: str, died_at_ms: int) -> DeadLetter:
    return DeadLetter(make_entry(log_id), "type", "reason", History(1), died_at_ms)


def left(path: Path) -> list[str]:
    return [log_id for (log_id,) in read_rows(path, "SELECT log_id FROM dead_letters ORDER BY log_id")]


async def test_dead_letters_go_when_their_time_is_up(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("old", 999), make_letter("new", 1000)]))

    assert await retention.clean_up(spool, 1000) == 1
    assert left(path) == ["new"]
    assert await retention.clean_up(spool, 1000) == 0


async def test_many_dead_letters_go_piece_by_piece(spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "DEAD_MAX", 3)
    await commit(spool, Transaction(dead=[make_letter(f"{number}", number) for number in range(9)]))

    assert await spool.clean_up(9, 3) == (3, True)
    assert len(left(path)) == 6
    assert await spool.clean_up(2, 3) == (0, False)
    assert await retention.clean_up(spool, 9) == 6
    assert left(path) == []


async def test_a_dead_letter_that_is_to_be_replayed_stays(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("marked", 1), make_letter("other", 1)]))
    with inspect(path) as inspection:
        inspection.mark_for_replay(Choice(("marked",)))

    assert await retention.clean_up(spool, 1000) == 1
    assert left(path) == ["marked"]


async def test_freed_pages_go_back_to_the_file_system_some_at_a_time(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [[make_entry(f"{number}-{os.urandom(4000).hex()}")] for number in range(50)]
    await commit(spool, Transaction(inserts=[NewGroup(number, body) for number, body in enumerate(bodies, 1)]))
    await commit(spool, Transaction(deletes=list(range(1, 51))))
    ((pages, free),) = read_rows(
        path, "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count"
    )
    assert free > 50

    monkeypatch.setattr(writing, "VACUUM_PAGES_MAX", 20)
    assert await spool.clean_up(0, 1) == (0, True)
    # One more page may hold what SQLite notes of the others.
    assert pages - 21 <= read_rows(path, "PRAGMA page_count")[0][0] <= pages - 20
    await retention.clean_up(spool, 0)
    assert read_rows(path, "PRAGMA freelist_count")[0][0] < 20
    monkeypatch.setattr(writing, "VACUUM_PAGES_MAX", 1000)
    assert await spool.clean_up(0, 1) == (0, False)
    assert read_rows(path, "PRAGMA freelist_count") == [(0,)]


async def test_events_that_wait_never_expire(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(1, [make_entry("pending")])]))

    await retention.clean_up(spool, 2**60)

    assert read_rows(path, "SELECT id FROM groups") == [(1,)]


async def test_the_clean_up_goes_on_for_ever_whatever_fails(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "INTERVAL_S", 0.001)
    clean_up, calls = spool.clean_up, []

    async def fail_first(died_before_ms: int, dead_max: int) -> tuple[int, bool]:
        calls.append(died_before_ms)
        if len(calls) == 1:
            raise SpoolUnavailable("locked")
        return await clean_up(died_before_ms, dead_max)

    monkeypatch.setattr(spool, "clean_up", fail_first)
    now = writing.now_ms()
    letters = [make_letter("gone", now - 8 * retention.DAY_MS), make_letter("kept", now - 6 * retention.DAY_MS)]
    await commit(spool, Transaction(dead=letters))
    task = asyncio.create_task(retention.run(spool, 7))

    await until(lambda: left(path) == ["kept"])
    await until(lambda: len(calls) > 3)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert left(path) == ["kept"]
