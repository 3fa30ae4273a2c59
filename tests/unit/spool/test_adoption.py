"""What is in a spool without an owner comes into another one as it stands, and its file goes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from forebay.errors import SpoolUnusable
from forebay.model import DeadLetter, Entry, History
from forebay.spool import adoption, database
from forebay.spool.adoption import Orphan, find_orphans
from forebay.spool.beside.inspection import Choice, Request, inspect
from forebay.spool.records import EVERY, NewGroup, Transaction
from forebay.spool.spool import Spool
from forebay.spool.spool_paths import spool_path
from unit.pipeline.fakes import commit, make_entries, make_entry, open_spool, read_rows

GROUPS = (
    "SELECT events, body_bytes, stored_bytes, attempts, strikes, attempted_at_ms, received_at_ms, codec, body, "
    "index_name, refusals, refused_status FROM groups ORDER BY id"
)
LETTERS = "SELECT log_id, error_type, reason, attempts, attempted_at_ms, died_at_ms, replay, entry FROM dead_letters"
TRIED = History(3, (100, 200, 300), 2, 1, 400)


@pytest.fixture
def orphan_path(tmp_path: Path) -> Path:
    return tmp_path / "spool.3.db"


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with open_spool(tmp_path / "spool.db") as spool:
        yield spool


async def fill(path: Path, groups: Sequence[Sequence[Entry]], dead: Sequence[DeadLetter] = ()) -> None:
    """Leave a spool behind that nobody owns any more."""
    async with open_spool(path) as spool:
        inserts = [NewGroup(number, entries, TRIED) for number, entries in enumerate(groups, start=1)]
        await commit(spool, Transaction(inserts=inserts, dead=list(dead)))


async def empty(path: Path, spool: Spool, first_id: int = 1) -> int:
    """Move everything; return in how many portions."""
    orphan, portions = Orphan(path), 0
    try:
        while (portion := orphan.take()) is not None:
            await spool.adopt(portion, first_id)
            orphan.let_go(portion)
            first_id += len(portion.groups)
            portions += 1
        orphan.remove()
    finally:
        orphan.close()
    return portions


def read(spool_file: Path, statement: str) -> list[tuple[Any, ...]]:
    return read_rows(spool_file, statement)


def files(path: Path) -> list[str]:
    """Return the names of a spool and of what belongs to it."""
    return sorted(file.name for file in path.parent.glob(f"{path.name}*"))


def letter(log_id: str, died_at_ms: int, reason: str = "failed to parse") -> DeadLetter:
    return DeadLetter(make_entry(log_id), "mapper_parsing_exception", reason, History(2, (1, 2)), died_at_ms)


@pytest.mark.parametrize(
    ("slot", "workers", "orphans"),
    [(1, 1, [2, 3, 4, 5]), (1, 2, [3, 5]), (2, 2, [4]), (1, 3, [4]), (2, 3, [5]), (3, 3, []), (1, 5, [])],
)
def test_each_orphan_falls_to_one_worker(tmp_path: Path, slot: int, workers: int, orphans: list[int]) -> None:
    database = tmp_path / "spool.db"
    for number in range(1, 6):
        spool_path(database, number).touch()
    assert find_orphans(database, slot, workers) == [spool_path(database, orphan) for orphan in orphans]


async def test_groups_keep_their_bytes_history_time_of_receipt_and_order(
    tmp_path: Path, orphan_path: Path, spool: Spool
) -> None:
    await fill(orphan_path, [make_entries(3, "small"), make_entries(100, "packed"), make_entries(1, "last")])
    before = read(orphan_path, GROUPS)
    await commit(spool, Transaction(inserts=[NewGroup(7, make_entries(1, "own"))]))
    assert await empty(orphan_path, spool, first_id=8) == 1
    assert read(tmp_path / "spool.db", GROUPS)[1:] == before
    groups = await spool.load(7, frozenset(), (10**9, 10**9), EVERY)
    assert [group.history for group in groups] == [TRIED] * 3
    assert groups[1].entries == make_entries(100, "packed")


async def test_the_totals_of_the_adopter_hold_what_was_adopted(orphan_path: Path, tmp_path: Path, spool: Spool) -> None:
    await fill(orphan_path, [make_entries(3), make_entries(2, "b")], [letter("dead", 5)])
    await empty(orphan_path, spool)
    ((events, letters),) = read(tmp_path / "spool.db", "SELECT events, dead_letters FROM totals")
    assert (events, letters) == (5, 1)


async def test_the_file_goes_with_all_that_belongs_to_it(orphan_path: Path, spool: Spool) -> None:
    await fill(orphan_path, [make_entries(3)])
    await empty(orphan_path, spool)
    assert files(orphan_path) == []


async def test_dead_letters_keep_their_reason_and_times(tmp_path: Path, orphan_path: Path, spool: Spool) -> None:
    await fill(orphan_path, [], [letter("a", 5), letter("b", 6)])
    before = read(orphan_path, LETTERS)
    await empty(orphan_path, spool)
    assert read(tmp_path / "spool.db", LETTERS) == before


@pytest.mark.parametrize(("own_ms", "orphans_ms", "kept"), [(5, 6, "theirs"), (6, 5, "mine"), (5, 5, "theirs")])
async def test_of_two_dead_letters_for_one_event_the_newest_stays(
    tmp_path: Path, orphan_path: Path, spool: Spool, own_ms: int, orphans_ms: int, kept: str
) -> None:
    await commit(spool, Transaction(dead=[letter("a", own_ms, "mine")]))
    await fill(orphan_path, [], [letter("a", orphans_ms, "theirs")])
    await empty(orphan_path, spool)
    assert read(tmp_path / "spool.db", "SELECT reason, died_at_ms FROM dead_letters") == [
        (kept, max(own_ms, orphans_ms))
    ]


async def test_a_request_that_nobody_has_taken_is_taken_by_the_adopter(orphan_path: Path, spool: Spool) -> None:
    await fill(orphan_path, [make_entries(1)])
    with inspect(orphan_path) as inspection:
        inspection.ask(Request.RETRY)
    await empty(orphan_path, spool)
    assert await spool.take_requests() == {"retry"}


async def test_dead_letters_that_are_marked_are_replayed_by_the_adopter_though_nobody_asked(
    orphan_path: Path, spool: Spool
) -> None:
    await fill(orphan_path, [], [letter("a", 5), letter("b", 6)])
    with inspect(orphan_path) as inspection:
        inspection.mark_for_replay(Choice(log_ids=("a",)))
    await empty(orphan_path, spool)
    assert await spool.take_requests() == {"replay"}
    assert (await spool.replay(50, 100))[0] == 1


async def test_a_portion_is_bounded_in_rows_and_in_bytes(
    orphan_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "ROWS_MAX", 4)
    monkeypatch.setattr(adoption, "STORED_BYTES_MAX", 1000)
    await fill(orphan_path, [[make_entry("large", 900)], *([entry] for entry in make_entries(9, size=150))])
    # 900 bytes and no more, then four small ones, four, and one.
    assert await empty(orphan_path, spool) == 4


async def test_what_was_kept_but_not_let_go_of_before_a_crash_is_in_both_and_lost_in_neither(
    tmp_path: Path, orphan_path: Path, spool: Spool
) -> None:
    await fill(orphan_path, [make_entries(3)])
    orphan = Orphan(orphan_path)
    portion = orphan.take()
    assert portion is not None
    await spool.adopt(portion, 1)
    orphan.close()
    assert read(orphan_path, GROUPS) == read(tmp_path / "spool.db", GROUPS)
    await empty(orphan_path, spool, first_id=2)
    assert len(read(tmp_path / "spool.db", GROUPS)) == 2


async def test_no_command_changes_an_orphan_while_a_portion_is_on_its_way(orphan_path: Path) -> None:
    await fill(orphan_path, [], [letter("a", 5)])
    orphan = Orphan(orphan_path)
    orphan.take()
    beside = sqlite3.connect(orphan_path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        beside.execute("UPDATE dead_letters SET replay = 1")
    beside.close()
    orphan.close()


def test_a_spool_that_somebody_owns_is_no_orphan(orphan_path: Path) -> None:
    owner = Orphan(orphan_path)
    with pytest.raises(SpoolUnusable, match="belongs to another process"):
        Orphan(orphan_path)
    owner.close()


def test_a_newer_spool_is_left_untouched(orphan_path: Path) -> None:
    Orphan(orphan_path).close()
    connection = sqlite3.connect(orphan_path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = orphan_path.read_bytes()
    with pytest.raises(SpoolUnusable, match="newer Forebay"):
        Orphan(orphan_path)
    assert orphan_path.read_bytes() == before


async def test_an_orphan_whose_database_was_removed_is_found_by_its_log_and_saved(tmp_path: Path) -> None:
    orphan_path = tmp_path / "spool.3.db"
    groups = [make_entries(3)]
    async with open_spool(orphan_path) as orphan:
        await commit(orphan, Transaction(inserts=[NewGroup(1, groups[0])]))
        log = orphan_path.with_name("spool.3.db-wal")
        content = log.read_bytes()
    orphan_path.unlink()
    log.write_bytes(content)

    assert find_orphans(tmp_path / "spool.db", 1, 1) == [orphan_path]
    async with open_spool(tmp_path / "spool.db") as spool:
        await empty(orphan_path, spool)
        assert [group.entries for group in await spool.load(0, frozenset(), (10**9, 10**9), EVERY)] == groups


async def test_a_damaged_orphan_is_saved_before_it_is_emptied(orphan_path: Path, tmp_path: Path) -> None:
    # So many that the page at which the table begins only names others.
    groups = [[make_entry(f"event{number}", 900)] for number in range(100)]
    await fill(orphan_path, groups)
    damage(orphan_path)
    async with open_spool(tmp_path / "spool.db") as spool:
        await empty(orphan_path, spool)
        kept = await spool.load(0, frozenset(), (10**9, 10**9), EVERY)
    assert [group.entries for group in kept] == groups
    assert any(".aside-" in name for name in files(orphan_path))


def damage(path: Path) -> None:
    """Overwrite the page at which the table of groups begins."""
    ((page,),) = read(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'groups'")
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)


def test_a_lock_that_went_with_an_emptied_spool_while_somebody_waited_for_it_makes_nobody_an_owner(
    orphan_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied = Orphan(orphan_path)
    take_lock = database._lock

    def take_lock_late(file: IO[str], path: Path) -> None:
        """Take the lock that was opened before the spool was removed."""
        monkeypatch.setattr(database, "_lock", take_lock)
        emptied.remove()
        emptied.close()
        take_lock(file, path)

    monkeypatch.setattr(database, "_lock", take_lock_late)
    successor = Orphan(orphan_path)
    with pytest.raises(SpoolUnusable, match="belongs to another process"):
        Orphan(orphan_path)
    successor.close()
