"""The search for orphans, those that need an owner, and one that cannot be opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.clock import now_ms
from forebay.history import DeadLetter, History
from forebay.settings import Settings
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.beside.requests import Request
from forebay.spool.files import spool_path
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.upkeep.retention import DAY_MS
from forebay.workers import orphans
from forebay.workers.child import Child
from forebay.workers.link import LeftSpools, SupervisorLink, make_link
from forebay.workers.orphans import find_orphans, needs_owner
from unit.pipeline.fakes import commit, make_entries, make_entry, open_spool


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, DATABASE_URL=f"sqlite://{tmp_path / 'spool.db'}")


@pytest.fixture
def orphan(tmp_path: Path) -> Path:
    return tmp_path / "spool.3.db"


def letter(log_id: str = "a", died_days_ago: int = 0) -> DeadLetter:
    died_at_ms = now_ms() - died_days_ago * DAY_MS
    return DeadLetter(make_entry(log_id), "mapper_parsing_exception", "failed to parse", History(), died_at_ms)


async def fill(path: Path, transaction: Transaction) -> None:
    """Leave a spool behind that nobody owns any more."""
    async with open_spool(path) as spool:
        await commit(spool, transaction)


@pytest.mark.parametrize(("workers", "numbers"), [(1, [2, 3, 4, 5]), (2, [3, 4, 5]), (4, [5]), (5, [])])
def test_an_orphan_is_a_spool_whose_number_no_worker_has(tmp_path: Path, workers: int, numbers: list[int]) -> None:
    database = tmp_path / "spool.db"
    for number in range(1, 6):
        spool_path(database, number).touch()
    assert find_orphans(database, workers) == {number: spool_path(database, number) for number in numbers}


def test_an_orphan_whose_database_was_removed_is_found_by_its_log(tmp_path: Path) -> None:
    (tmp_path / "spool.3.db-wal").touch()
    assert find_orphans(tmp_path / "spool.db", 1) == {3: tmp_path / "spool.3.db"}


async def test_an_orphan_with_events_needs_an_owner(orphan: Path, settings: Settings) -> None:
    await fill(orphan, Transaction(inserts=[NewGroup(1, make_entries(1))], dead=[letter()]))
    assert needs_owner(orphan, settings)


async def test_an_orphan_that_is_empty_needs_an_owner_who_removes_it(orphan: Path, settings: Settings) -> None:
    await fill(orphan, Transaction())
    assert needs_owner(orphan, settings)


async def test_an_orphan_with_nothing_but_dead_letters_waits_for_a_command(orphan: Path, settings: Settings) -> None:
    await fill(orphan, Transaction(dead=[letter()]))
    assert not needs_owner(orphan, settings)
    with inspect(orphan) as spool:
        spool.ask(Request.RETRY)
    assert needs_owner(orphan, settings)


async def test_a_dead_letter_that_is_to_be_replayed_needs_an_owner(orphan: Path, settings: Settings) -> None:
    await fill(orphan, Transaction(dead=[letter("a"), letter("b")]))
    with inspect(orphan) as spool:
        spool.request_replay(Choice(log_ids=("b",)))
    assert needs_owner(orphan, settings)


@pytest.mark.parametrize(("days", "is_past"), [(29, False), (31, True)])
async def test_a_dead_letter_past_its_retention_needs_an_owner(
    orphan: Path,
    settings: Settings,
    days: int,
    is_past: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    await fill(orphan, Transaction(dead=[letter(died_days_ago=days)]))
    assert needs_owner(orphan, settings) is is_past


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Child, SupervisorLink]]:
    # It would be that of all tests.
    monkeypatch.setattr(orphans, "configure_logs", lambda *_: None)
    ours, theirs = make_link()
    with ours, theirs:
        yield Child(0, ours), SupervisorLink(theirs)


def run(settings: Settings, left_spools: dict[str, str], ends: tuple[Child, SupervisorLink]) -> dict[str, str]:
    """Look for an orphan to empty, which there must not be; return why orphans are left."""
    child, link = ends
    assert orphans.run(settings, settings.database_url.parent, left_spools, 1, link) == 0
    (report,) = child.read_reports()
    assert isinstance(report, LeftSpools)
    return report.causes


def test_an_orphan_of_a_newer_version_is_left_untouched(
    orphan: Path, settings: Settings, ends: tuple[Child, SupervisorLink]
) -> None:
    connection = sqlite3.connect(orphan)
    connection.executescript(f"PRAGMA application_id = {0x466F7262}; PRAGMA user_version = 99; CREATE TABLE t (c);")
    connection.close()
    before = orphan.read_bytes()
    causes = run(settings, {}, ends)
    assert "was written by a newer Forebay" in causes[str(orphan)]
    assert orphan.read_bytes() == before


async def test_an_orphan_that_somebody_owns_after_all_is_left_to_them(
    orphan: Path, settings: Settings, ends: tuple[Child, SupervisorLink]
) -> None:
    async with open_spool(orphan):
        causes = run(settings, {}, ends)
    assert "belongs to another process" in causes[str(orphan)]


async def test_an_orphan_that_was_left_and_is_well_or_gone_now_is_not_named_any_more(
    tmp_path: Path, orphan: Path, settings: Settings, ends: tuple[Child, SupervisorLink]
) -> None:
    await fill(orphan, Transaction(dead=[letter()]))
    left = {str(orphan): "belongs to another process", str(tmp_path / "spool.9.db"): "damaged"}
    assert run(settings, left, ends) == {}
