"""Spools without an owner are emptied: slowly, and never against what keeps events safe."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.errors import SpoolUnavailable, SpoolUnusable
from forebay.pipeline import adoption
from forebay.pipeline.adoption import Adoption
from forebay.pipeline.gate import Health
from forebay.pipeline.pipeline import State
from forebay.spool.adoption import Orphan, Portion
from forebay.spool.files import spool_path
from forebay.spool.records import NewGroup, Transaction
from unit.pipeline.fakes import capture_log, commit, make_entries, open_spool, until

STORED_BYTES_MAX = 1000
STATE = State(0, 0, 0, 0, 0, Health.GOOD, "", "", spool_full=False)


class Adopter:
    """A pipeline that keeps what it is given, and may be full or broken."""

    def __init__(self) -> None:
        self.portions: list[Portion] = []
        self.stored_bytes = 0
        self.looks = 0
        self.failures = 0

    @property
    def state(self) -> State:
        self.looks += 1
        return STATE._replace(stored_bytes=self.stored_bytes)

    async def adopt(self, portion: Portion) -> None:
        if self.failures:
            self.failures -= 1
            raise SpoolUnavailable("the disk is full")
        self.portions.append(portion)


@pytest.fixture
def adopter() -> Adopter:
    return Adopter()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "LOOK_S", 0.01)
    monkeypatch.setattr(adoption, "FULL_S", 0.01)


async def leave_behind(path: Path, groups: int) -> None:
    async with open_spool(path) as spool:
        inserts = [NewGroup(number, make_entries(2, f"e{number}-")) for number in range(1, groups + 1)]
        await commit(spool, Transaction(inserts=inserts))


@contextlib.asynccontextmanager
async def adopting(adopter: Adopter, database: Path, slot: int = 1, workers: int = 1) -> AsyncIterator[Adoption]:
    found = Adoption(adopter, STORED_BYTES_MAX)
    task = asyncio.create_task(found.run(database, slot, workers))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_orphan_is_emptied_and_its_file_removed(adopter: Adopter, database: Path) -> None:
    orphans = [spool_path(database, slot) for slot in (2, 3)]
    for path in orphans:
        await leave_behind(path, 3)
    async with adopting(adopter, database):
        await until(lambda: not any(path.exists() for path in orphans))
    assert sum(portion.events for portion in adopter.portions) == 12


async def test_the_orphans_of_other_workers_are_left_to_them(adopter: Adopter, database: Path) -> None:
    mine, theirs = spool_path(database, 3), spool_path(database, 4)
    for path in (mine, theirs):
        await leave_behind(path, 1)
    async with adopting(adopter, database, slot=1, workers=2):
        await until(lambda: not mine.exists())
    assert theirs.exists()
    assert len(adopter.portions) == 1


async def test_nothing_is_adopted_while_the_spool_is_half_full(adopter: Adopter, database: Path) -> None:
    path = spool_path(database, 2)
    await leave_behind(path, 1)
    adopter.stored_bytes = STORED_BYTES_MAX // 2 + 1
    async with adopting(adopter, database):
        await until(lambda: adopter.looks > 3)
        assert adopter.portions == []
        adopter.stored_bytes = 0
        await until(lambda: not path.exists())
    assert len(adopter.portions) == 1


async def test_what_the_spool_could_not_keep_stays_in_the_orphan_until_it_can(adopter: Adopter, database: Path) -> None:
    path = spool_path(database, 2)
    await leave_behind(path, 2)
    adopter.failures = 2
    async with adopting(adopter, database):
        await until(lambda: not path.exists())
    assert [portion.events for portion in adopter.portions] == [4]


async def test_what_is_kept_is_not_taken_again_because_it_could_not_be_deleted(
    adopter: Adopter, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spool_path(database, 2)
    await leave_behind(path, 2)
    failures = [SpoolUnusable("the disk is full")] * 2
    let_go = Orphan.let_go

    def fail(orphan: Orphan, portion: Portion) -> None:
        if failures:
            raise failures.pop()
        let_go(orphan, portion)

    monkeypatch.setattr(Orphan, "let_go", fail)
    async with adopting(adopter, database):
        await until(lambda: not path.exists())
    assert len(adopter.portions) == 1


async def test_an_orphan_that_cannot_be_had_is_told_once_and_named_until_it_can(
    adopter: Adopter, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = capture_log(monkeypatch, adoption)
    path = spool_path(database, 2)
    owner = Orphan(path)
    async with adopting(adopter, database) as found:
        await until(lambda: found.causes)
        assert str(path) in found.causes[0]
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert [line["event"] for line in log] == ["spool_left"]
        owner.close()
        await until(lambda: not path.exists())
        await until(lambda: not found.causes)


async def test_one_orphan_that_cannot_be_had_keeps_no_other_from_being_emptied(
    adopter: Adopter, database: Path
) -> None:
    owner = Orphan(spool_path(database, 2))
    other = spool_path(database, 3)
    await leave_behind(other, 1)
    async with adopting(adopter, database):
        await until(lambda: not other.exists())
    owner.close()
    assert len(adopter.portions) == 1
