"""A damaged spool loses only the events in its damaged pages, and the damaged file is kept."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import SpoolDamaged, SpoolUnavailable, SpoolUnusable
from forebay.spool import database
from forebay.spool.beside.connecting import reading
from forebay.spool.beside.inspection import inspect
from forebay.spool.files import PAGE_BYTES, SpoolFiles
from forebay.spool.loading import EVERY
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.rescue import salvage
from forebay.spool.rescue.damage import leave_marker
from forebay.spool.rescue.trees import Row
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from unit.pipeline.fakes import commit, make_entries, make_entry, open_spool, read_rows, settle_down, until
from unit.spool.rescue.damaged import (
    OWNED,
    Contents,
    copy,
    fill,
    frame_count,
    frame_offset,
    leave_behind,
    overwrite,
    overwrite_page,
    page_count,
    read_contents,
    read_group,
    wal_of,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    path = tmp_path_factory.mktemp("sound") / "spool.db"
    return path, fill(path)


@pytest.fixture
def path(sound: tuple[Path, Contents], tmp_path: Path) -> Path:
    return copy(sound[0], tmp_path / "copy")


@pytest.fixture
def contents(sound: tuple[Path, Contents]) -> Contents:
    return sound[1]


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, Contents]:
    """Leave a spool as a killed owner does: everything is in the log, in several commits."""
    path = tmp_path / "open" / "spool.db"
    path.parent.mkdir()
    groups = {row_id: make_entries(1, f"{row_id}-", 3000) for row_id in range(1, 101)}
    with contextlib.closing(Store(database.connect(path))) as store:
        for row_id, entries in groups.items():
            store.write(Transaction(inserts=[NewGroup(row_id, entries)]))
        return leave_behind(path, tmp_path / "killed"), Contents(groups, {})


def open_once(path: Path) -> Contents:
    Spool(path).close()
    assert read_rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert read_rows(path, "SELECT events, dead_letters FROM totals") == read_rows(
        path, "SELECT (SELECT coalesce(sum(events), 0) FROM groups), (SELECT count(*) FROM dead_letters)"
    )
    return read_contents(path)


def incidents(path: Path) -> list[str]:
    return [f"{kind}: {detail}" for kind, detail in read_rows(path, "SELECT kind, detail FROM incidents ORDER BY id")]


def files_moved_away(path: Path) -> set[str]:
    """Return the ends of the names of those of SQLite's files that were moved away."""
    names = [file.name for file in path.parent.iterdir() if ".moved-" in file.name]
    return {f"-{side}" if side else "" for side in (name.partition("Z")[2].lstrip("-") for name in names)}


def readable_by_sqlite(path: Path, contents: Contents) -> set[int]:
    """Return the groups that SQLite itself still gives in a damaged file."""
    found = set()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for row_id, entries in contents.groups.items():
            with contextlib.suppress(sqlite3.DatabaseError, ValueError, TypeError):
                if read_group(connection, row_id) == entries:
                    found.add(row_id)
    return found


def test_each_page_that_is_overwritten_costs_only_what_lay_in_it(
    path: Path, contents: Contents, tmp_path: Path
) -> None:
    lost_of_page: dict[int, int] = {}
    for number in range(1, page_count(path) + 1):
        damaged = copy(path, tmp_path / f"page{number}")
        overwrite_page(damaged, number)
        still_readable = readable_by_sqlite(damaged, contents)
        leave_marker(SpoolFiles(damaged), "a test")

        saved = open_once(damaged)

        assert saved.groups.items() <= contents.groups.items(), "nothing that was deleted comes back"
        assert saved.dead.items() <= contents.dead.items()
        assert still_readable <= saved.groups.keys()
        lost_of_page[number] = len(contents.groups) - len(saved.groups) + len(contents.dead) - len(saved.dead)
        shutil.rmtree(damaged.parent)
    assert max(lost_of_page.values()) <= 25, "no page holds more rows"
    assert list(lost_of_page.values()).count(0) > 10, "nor does each of them hold rows"
    assert lost_of_page[1] == lost_of_page[2] == 0


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_written_over_whatever_the_repair_ends_and_what_it_saves_was_there(
    path: Path, contents: Contents, seed: int
) -> None:
    chance = random.Random(seed)
    content = path.read_bytes()
    for _ in range(chance.randint(1, 6)):
        length = chance.choice([20, 500, 4096, 20_000])
        overwrite(
            path, chance.randrange(len(content) - length), chance.choice([chance.randbytes(length), bytes(length)])
        )
    # A page in the place of another one looks sound.
    one, other = (chance.randrange(2, page_count(path)) * PAGE_BYTES for _ in range(2))
    overwrite(path, one, content[other : other + PAGE_BYTES])
    leave_marker(SpoolFiles(path), "a test")

    saved = open_once(path)

    known = {entry for entries in contents.groups.values() for entry in entries}
    for row_id in saved.groups.keys() & contents.groups.keys():
        assert known & set(saved.groups[row_id]), "one of the events that it holds"
    assert saved.dead.items() <= contents.dead.items()


def test_a_file_whose_first_page_is_overwritten_is_saved_and_kept(path: Path, contents: Contents) -> None:
    overwrite_page(path, 1)
    damaged = path.read_bytes()

    assert open_once(path) == contents

    (moved,) = SpoolFiles(path).list_moved_away()
    assert moved.read_bytes() == damaged
    assert {file.name for file in path.parent.iterdir()} == {"spool.db", "spool.db.lock", moved.name}
    (incident,) = incidents(path)
    events = sum(map(len, contents.groups.values()))
    assert "file is not a database" in incident
    assert f"kept as {moved.name}" in incident
    assert f"{len(contents.groups)} groups with {events} events, {len(contents.dead)} dead letters" in incident
    Spool(path).close()
    assert len(incidents(path)) == 1, "it is repaired once"


def test_what_was_known_of_groups_and_dead_letters_is_saved_with_them(path: Path) -> None:
    known = "SELECT id, attempts, attempted_at_ms, strikes, received_at_ms, codec, body FROM groups ORDER BY id"
    known_of_dead = (
        "SELECT log_id, reason, attempts, attempted_at_ms, died_at_ms, replay FROM dead_letters ORDER BY log_id"
    )
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE groups SET strikes = id % 3")
        connection.execute("UPDATE dead_letters SET replay = 1 WHERE log_id < 'dead2'")
        connection.execute("INSERT INTO incidents (at_ms, kind, detail) VALUES (7, 'earlier', 'one')")
    before = read_rows(path, known), read_rows(path, known_of_dead)
    overwrite_page(path, 1)

    open_once(path)

    assert (read_rows(path, known), read_rows(path, known_of_dead)) == before
    assert incidents(path)[0] == "earlier: one"


@pytest.mark.parametrize("pages", [0.5, 0.7, 0.9])
def test_a_file_that_is_cut_short_is_saved_up_to_there(path: Path, contents: Contents, pages: float) -> None:
    whole = page_count(path)
    with path.open("r+b") as file:
        file.truncate(int(whole * pages) * PAGE_BYTES + 100)

    saved = open_once(path)

    assert saved.groups.items() <= contents.groups.items()
    assert len(saved.groups) >= (pages - 0.4) * len(contents.groups)
    (incident,) = incidents(path)
    assert incident.startswith("damaged: database disk image is malformed")
    assert f"of {sum(map(len, contents.groups.values()))} events" in incident


def test_an_empty_file_that_was_in_use_is_told_of_once_and_kept(path: Path) -> None:
    path.write_bytes(b"")

    assert open_once(path) == Contents({}, {})
    assert incidents(path)[0].startswith("emptied: the file is empty, and was not when it was last opened")
    assert files_moved_away(path) == {""}
    open_once(path)
    assert len(incidents(path)) == 1


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_file_beside_a_log_is_saved_from_the_log(killed: tuple[Path, Contents], there: bool) -> None:  # noqa: FBT001
    path, contents = killed
    before = wal_of(path).read_bytes()
    path.unlink()
    if there:
        path.touch()

    assert open_once(path) == contents
    assert [incident.partition(":")[0] for incident in incidents(path)] == ["emptied"]
    assert files_moved_away(path) == ({"", "-wal"} if there else {"-wal"})
    (kept,) = [file for file in path.parent.iterdir() if file.name.endswith("-wal")]
    assert kept.read_bytes() == before, "the repair works on a copy"


def test_a_log_whose_first_bytes_are_damaged_is_told_of_once_and_kept(killed: tuple[Path, Contents]) -> None:
    path, _ = killed
    overwrite(wal_of(path), 0, b"\x55" * 32)
    before = wal_of(path).read_bytes()

    open_once(path)
    open_once(path)

    assert [incident.partition(":")[0] for incident in incidents(path)] == ["log_unreadable"]
    (kept,) = [file for file in path.parent.iterdir() if file.name.endswith("-wal")]
    assert kept.name in incidents(path)[0]
    assert kept.read_bytes() == before


def test_a_log_of_somebody_elses_database_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    wal_of(path).write_bytes(b"\x55" * 5000)

    with pytest.raises(SpoolUnusable, match="another program"):
        Spool(path)
    assert files_moved_away(path) == set()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.8])
def test_a_damaged_frame_of_the_log_ends_what_counts_of_it_and_that_is_told_once(
    killed: tuple[Path, Contents], part: float
) -> None:
    path, contents = killed
    number = 1 + int(part * frame_count(path))
    overwrite(wal_of(path), frame_offset(number) + 100, b"\x55" * 50)

    Spool(path).close()
    saved = read_contents(path) if part else Contents({}, {})
    open_once(path)

    assert list(saved.groups.items()) == list(contents.groups.items())[: len(saved.groups)], "all before it is there"
    assert [incident.partition(":")[0] for incident in incidents(path)] == ["log_cut_off"]
    assert files_moved_away(path) == set(), "SQLite does not call that damage"


def test_a_commit_that_was_being_written_when_the_process_ended_is_nothing_to_tell_of(
    killed: tuple[Path, Contents],
) -> None:
    path, contents = killed
    with wal_of(path).open("r+b") as file:
        file.truncate(frame_offset(frame_count(path)))

    assert open_once(path).groups == {row_id: body for row_id, body in contents.groups.items() if row_id != 100}
    assert incidents(path) == []


def test_a_last_commit_that_was_torn_is_told_of_and_is_no_damage(killed: tuple[Path, Contents]) -> None:
    path, contents = killed
    overwrite(wal_of(path), frame_offset(frame_count(path)) + 100, b"\x55" * 50)

    assert open_once(path).groups == {row_id: body for row_id, body in contents.groups.items() if row_id != 100}
    assert [incident.partition(":")[0] for incident in incidents(path)] == ["log_cut_off"]


@pytest.mark.parametrize("look", [inspect, reading])
def test_no_command_opens_what_sqlite_would_make_worse(killed: tuple[Path, Contents], look: Any) -> None:
    path, contents = killed
    content = path.read_bytes()
    path.write_bytes(b"")
    before = wal_of(path).read_bytes()
    with pytest.raises(SpoolUnusable, match="is empty; restart the server"), look(path):
        pass
    assert wal_of(path).read_bytes() == before
    assert open_once(path) == contents

    path.write_bytes(content)
    wal_of(path).write_bytes(b"\x55" * 32 + before[32:])
    with pytest.raises(SpoolUnusable, match=r"nobody can read .*; restart the server"), look(path):
        pass
    assert wal_of(path).exists()


@pytest.mark.parametrize("look", [inspect, reading])
def test_a_command_leaves_the_log_of_a_killed_owner_as_it_is(killed: tuple[Path, Contents], look: Any) -> None:
    path, _ = killed
    overwrite(wal_of(path), frame_offset(100) + 100, b"\x55" * 50)
    before = wal_of(path).read_bytes()

    with look(path):
        pass

    assert wal_of(path).read_bytes() == before
    Spool(path).close()
    assert [incident.partition(":")[0] for incident in incidents(path)] == ["log_cut_off"], "so the owner tells of it"


def test_a_log_that_was_removed_is_told_of(killed: tuple[Path, Contents]) -> None:
    path, _ = killed
    Spool(path).close()
    assert incidents(path) == [], "whoever ends in order leaves none"
    path.with_name("spool.db.lock").write_text(OWNED)
    assert not wal_of(path).exists()

    Spool(path).close()
    Spool(path).close()

    assert [incident.partition(":")[0] for incident in incidents(path)] == ["log_missing"]


def test_what_only_the_log_holds_is_saved_beside_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "open" / "spool.db"
    path.parent.mkdir()
    entries = make_entries(1)
    with contextlib.closing(Store(database.connect(path))) as store:
        store.empty_log()
        store.write(Transaction(inserts=[NewGroup(1, entries)]))
        left = leave_behind(path, tmp_path / "killed")
    overwrite_page(left, 1)

    assert open_once(left).groups == {1: entries}
    assert incidents(left)[0].startswith("damaged: file is not a database")


def test_a_log_that_was_written_over_in_part_is_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "open" / "spool.db"
    path.parent.mkdir()
    with contextlib.closing(Store(database.connect(path))) as store:
        for row_id in range(1, 51):
            store.write(Transaction(inserts=[NewGroup(row_id, make_entries(1, f"{row_id}-"))]))
        store.write_log_back()
        store.write(Transaction(inserts=[NewGroup(51, make_entries(1))]))
        left = leave_behind(path, tmp_path / "killed")

    assert open_once(left).groups.keys() == set(range(1, 52))
    assert incidents(left) == []


# -- files that are no damaged spool of ours


@pytest.mark.parametrize("lock", [OWNED, ""])
def test_somebody_elses_database_is_refused_however_often(tmp_path: Path, lock: str) -> None:
    path = tmp_path / "spool.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE groups (id INTEGER PRIMARY KEY); PRAGMA application_id = 7;")
    content = path.read_bytes()
    path.with_name("spool.db.lock").write_text(lock)

    for _ in range(3):
        with pytest.raises(SpoolUnusable, match="another program"):
            Spool(path)
    assert path.read_bytes() == content


def test_a_newer_spool_is_refused_though_it_was_ours(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = DELETE; PRAGMA user_version = 3;")
    content = path.read_bytes()

    for _ in range(2):
        with pytest.raises(SpoolUnusable, match="newer Forebay"):
            Spool(path)
    assert path.read_bytes() == content


def test_somebody_elses_file_is_refused_however_often(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"no database, but somebody's notes\n" * 1000)

    for _ in range(3):
        with pytest.raises(SpoolDamaged, match="not a database"):
            Spool(path)
    assert path.read_bytes() == b"no database, but somebody's notes\n" * 1000


def test_garbage_in_the_place_of_a_spool_is_moved_away(path: Path) -> None:
    path.write_bytes(b"\x55" * 100_000)

    assert open_once(path) == Contents({}, {})
    (moved,) = SpoolFiles(path).list_moved_away()
    assert moved.read_bytes() == b"\x55" * 100_000


def test_a_damaged_spool_without_its_lock_file_is_known_by_its_events(path: Path, contents: Contents) -> None:
    path.with_name("spool.db.lock").unlink()
    overwrite_page(path, 1)

    assert open_once(path) == contents


# -- a repair that is interrupted


@pytest.mark.parametrize(
    ("place", "step", "name"),
    [
        (Path, "rename", "spool.db"),
        (salvage, "save", ""),
        (Store, "report", ""),
        (Path, "rename", "spool.db.saving"),
        (Path, "unlink", "spool.db.damaged"),
    ],
    ids=["move away", "save", "report", "take its place", "finish"],
)
def test_a_repair_that_is_interrupted_begins_again(
    path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch, place: Any, step: str, name: str
) -> None:
    overwrite_page(path, 1)
    do = getattr(place, step)

    def fail(first: Any, *others: Any, **options: Any) -> Any:
        if name in ("", getattr(first, "name", "")):
            raise OSError("No space left on device")
        return do(first, *others, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place, step, fail)
        for _ in range(2):
            with pytest.raises(SpoolUnusable, match="the next start tries again"):
                Spool(path)

    assert open_once(path) == contents
    assert len(incidents(path)) == 1
    assert not SpoolFiles(path).damage_marker.exists()


def test_two_files_that_are_damaged_in_one_second_are_both_kept(path: Path) -> None:
    for _ in range(2):
        overwrite_page(path, 1)
        Spool(path).close()

    assert len(SpoolFiles(path).list_moved_away()) == 2


# -- rows that were found twice


def save(rows: list[Any], path: Path) -> dict[int, int]:
    with contextlib.closing(Store(database.connect(path))) as store:
        salvage.save(rows, store)
    return dict(read_rows(path, "SELECT id, events FROM groups"))


def make_row(row_id: int, events: int, *, is_referenced: bool) -> Any:
    entries = make_entries(events, f"{row_id}-{events}-")
    body = b"".join(entries)
    history = (0, 1000, 0, "[]", "events_test_2026-11", 0, 0)
    return Row(row_id, (None, events, len(body), len(body), *history, 0, body), is_referenced)


def test_of_a_group_that_was_found_twice_what_its_table_leads_to_is_the_truth(tmp_path: Path) -> None:
    rows = [
        make_row(5, 2, is_referenced=True),
        make_row(5, 3, is_referenced=False),
        make_row(5, 1, is_referenced=False),
    ]

    assert save(rows, tmp_path / "spool.db") == {5: 2}


def test_of_a_group_that_was_found_twice_where_nothing_leads_to_it_each_body_is_kept(tmp_path: Path) -> None:
    rows = [
        make_row(5, 2, is_referenced=False),
        make_row(5, 3, is_referenced=False),
        make_row(5, 3, is_referenced=False),
        make_row(9, 1, is_referenced=True),
    ]

    assert save(rows, tmp_path / "spool.db") == {5: 2, 9: 1, 10: 3}


@pytest.mark.parametrize(
    "change",
    [
        {1: 3},
        {2: 1},
        {3: 1},
        {11: 7},
        {12: b"no entry"},
        {12: None},
        {1: "2"},
        {0: 5},
    ],
)
def test_a_row_with_anything_wrong_in_it_is_left_out(tmp_path: Path, change: dict[int, Any]) -> None:
    row = make_row(5, 2, is_referenced=True)
    values = list(row.values)
    for place, value in change.items():
        values[place] = value

    assert save([row._replace(values=tuple(values)), make_row(6, 1, is_referenced=True)], tmp_path / "spool.db") == {
        6: 1
    }


def test_of_a_group_the_events_are_saved_that_are_whole(tmp_path: Path) -> None:
    row = make_row(5, 3, is_referenced=True)
    good = make_entries(3, "5-3-")
    body = good[0] + good[1].replace(b'{"x"', b'{"x\x00') + good[2]
    values = (None, 3, len(body), len(body), *row.values[4:12], body)

    save([row._replace(values=values)], tmp_path / "spool.db")

    assert read_contents(tmp_path / "spool.db").groups == {5: [good[0], good[2]]}


# -- damage that is found while the spool is in use


def is_checked() -> bool:
    """Return whether the check of the whole file is under way."""
    return any(thread.name == "spool-check" for thread in threading.enumerate())


async def refused(spool: Spool) -> str:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    spool.commit(Transaction(inserts=[NewGroup(10_000, [make_entry("a")])]), future.set_result)
    result = await asyncio.wait_for(future, 5)
    assert isinstance(result, SpoolUnavailable)
    return str(result)


async def test_damage_that_work_meets_ends_all_writing_and_is_repaired_by_the_next_start(path: Path) -> None:
    heard: list[str] = []
    async with open_spool(path) as spool:
        spool.guard(lambda: heard.append(spool.lost))
        await until(lambda: not is_checked())
        await spool.call(lambda store: store.connection.execute("PRAGMA cache_size = 0").fetchone())
        for number in range(3, page_count(path) + 1):
            overwrite_page(path, number)
        with pytest.raises(SpoolUnavailable, match="malformed"):
            await spool.load(0, frozenset(), (10**9, 10**9), EVERY)

        assert "the spool is damaged" in await refused(spool)
        await until(lambda: heard)
        assert "malformed" in heard[0]
        with pytest.raises(SpoolUnavailable, match="the spool is damaged"):
            await spool.take_requests()
        assert len(heard) == 1
    assert SpoolFiles(path).damage_marker.exists()

    async with open_spool(path) as spool:
        assert spool.lost == ""
        await commit(spool, Transaction(inserts=[NewGroup(spool.last_group_id + 1, make_entries(1))]))
    assert incidents(path)[0].startswith("damaged: database disk image is malformed")


async def test_damage_that_nothing_has_met_is_found_by_the_check(path: Path) -> None:
    # The page of a group in the middle, which opening does not read.
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'dead_letters_died_at'"
        ).fetchone()
    overwrite(path, (root - 1) * PAGE_BYTES, b"\x0a\x00\x00\xff\xff")
    async with open_spool(path) as spool:
        heard = asyncio.Event()
        spool.guard(heard.set)

        await asyncio.wait_for(heard.wait(), 10)

        assert "the spool is damaged" in await refused(spool)
    assert SpoolFiles(path).damage_marker.exists()


async def test_a_sound_spool_passes_the_check(path: Path) -> None:
    async with open_spool(path) as spool:
        spool.guard(lambda: None)
        await until(lambda: not is_checked())
        await commit(spool, Transaction(inserts=[NewGroup(10_000, [make_entry("a")])]))
        await settle_down()
        assert spool.lost == ""
