"""A spool that is empty goes with all its files, and one that holds anything stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.clock import now_ms
from forebay.errors import SpoolUnusable
from forebay.history import DeadLetter, History
from forebay.spool.beside.inspection import inspect
from forebay.spool.beside.requests import Request
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.upkeep.removal import remove_if_empty
from unit.pipeline.fakes import commit, make_entries, make_entry, open_spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.3.db"


async def fill(path: Path, transaction: Transaction) -> None:
    async with open_spool(path) as spool:
        await commit(spool, transaction)


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if not file.name.endswith(("-wal", "-shm")))


def letter() -> DeadLetter:
    return DeadLetter(make_entry("a"), "mapper_parsing_exception", "failed to parse", History(), now_ms())


async def test_an_empty_spool_goes_with_all_that_belongs_to_it(path: Path) -> None:
    await fill(path, Transaction(inserts=[NewGroup(1, make_entries(3))]))
    await fill(path, Transaction(deletes=[1]))
    remove_if_empty(path)
    assert files(path) == []


@pytest.mark.parametrize(
    "content",
    [Transaction(inserts=[NewGroup(1, make_entries(1))]), Transaction(dead=[letter()])],
    ids=["event", "letter"],
)
async def test_a_spool_that_holds_an_event_or_a_dead_letter_stays(path: Path, content: Transaction) -> None:
    await fill(path, content)
    before = files(path)
    remove_if_empty(path)
    assert files(path) == before


async def test_a_request_that_nobody_has_taken_stays(path: Path) -> None:
    await fill(path, Transaction())
    with inspect(path) as spool:
        spool.ask(Request.RETRY)
    remove_if_empty(path)
    async with open_spool(path) as owner:
        assert await owner.take_requests() == {"retry"}


async def test_the_spool_of_an_owner_is_not_removed(path: Path) -> None:
    async with open_spool(path):
        with pytest.raises(SpoolUnusable, match="belongs to another process"):
            remove_if_empty(path)
        assert "spool.3.db" in files(path)


def test_a_spool_that_cannot_be_read_is_not_removed(path: Path) -> None:
    path.write_bytes(b"these are no pages of SQLite " * 500)
    with pytest.raises(SpoolUnusable):
        remove_if_empty(path)
    assert path.exists()
