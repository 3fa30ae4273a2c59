"""Dead letters go when their time is up, and the room that was freed goes back to the file system."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import resource
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forebay.clock import now_ms
from forebay.errors import ExportFailed, SpoolUnavailable
from forebay.history import DeadLetter, History
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.codec import GroupCodec
from forebay.spool.files import SpoolFiles, spool_path
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.rescue import salvage
from forebay.spool.rescue.trees import Row
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from forebay.spool.upkeep import expiry, export, retention
from forebay.spool.upkeep.expiry import ExpiredLetter
from forebay.spool.upkeep.retention import Clocks, Retention
from unit.pipeline.fakes import capture_log, commit, make_entry, open_spool, read_rows, until

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_letter(log_id: str, died_at_ms: int) -> DeadLetter:
    return DeadLetter(make_entry(log_id), "type", "reason", History(1), died_at_ms)


async def list_expired(spool: Spool, died_before_ms: int, letters_max: int = 100) -> list[ExpiredLetter]:
    return await spool.call(lambda store: expiry.list_expired(store, died_before_ms, letters_max))


async def expire(spool: Spool, letter_ids: Sequence[int], died_before_ms: int) -> int:
    return await spool.call(lambda store: expiry.expire(store, letter_ids, died_before_ms))


class Machine:
    """The clocks of a machine, which stand still until they are moved."""

    def __init__(self) -> None:
        self.running_s = 1000.0
        self.wall_ms = 1_795_000_000_000

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.running_s, lambda: self.wall_ms)

    def jump(self, days: float) -> None:
        """Put the wall clock, or let time pass in which the machine is off."""
        self.wall_ms += int(days * retention.DAY_MS)

    def pass_time(self, seconds: float) -> None:
        self.running_s += seconds
        self.wall_ms += int(seconds * 1000)

    def make_letter(self, log_id: str, days_ago: float = 0) -> DeadLetter:
        return make_letter(log_id, self.wall_ms - int(days_ago * retention.DAY_MS))

    async def serve(self, path: Path, hours: float, days: int = 30) -> int:
        """Own the spool for some hours from start to end, clean up as often as a server does, count what went."""
        async with open_spool(path) as spool:
            kept = Retention(spool, days, self.clocks)
            gone = await retention.clean_up(spool, await kept.note_clocks())
            for _ in range(int(hours * 3600 / retention.INTERVAL_S)):
                self.pass_time(retention.INTERVAL_S + 0.5)
                gone += await retention.clean_up(spool, await kept.note_clocks())
        return gone

    async def bury(self, path: Path, *letters: DeadLetter) -> None:
        async with open_spool(path) as spool:
            await commit(spool, Transaction(dead=list(letters)))


def left(path: Path) -> list[str]:
    return [log_id for (log_id,) in read_rows(path, "SELECT log_id FROM dead_letters ORDER BY log_id")]


async def test_dead_letters_go_when_their_time_is_up(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("old", 999), make_letter("new", 1000)]))

    assert await retention.clean_up(spool, 1000) == 1
    assert left(path) == ["new"]
    assert await retention.clean_up(spool, 1000) == 0


async def test_many_dead_letters_go_piece_by_piece(spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LETTERS_MAX", 3)
    await commit(spool, Transaction(dead=[make_letter(f"{number}", number) for number in range(9)]))

    letters = await list_expired(spool, 9, 3)
    assert await expire(spool, [letter.id for letter in letters], 9) == 3
    assert len(left(path)) == 6
    assert await list_expired(spool, 2, 3) == []
    assert await retention.clean_up(spool, 9) == 6
    assert left(path) == []


async def test_long_reasons_count_in_a_piece(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "EXPIRED_BYTES_MAX", 5000)
    letters = [DeadLetter(make_entry(name, 100), "type", "ö" * 1000, History(1), 9) for name in "abcd"]
    await commit(spool, Transaction(dead=letters))

    assert [letter.log_id for letter in await list_expired(spool, 10)] == ["a", "b"]


async def test_large_dead_letters_go_in_smaller_pieces(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "EXPIRED_BYTES_MAX", 1000)
    sizes = [5000, 400, 500, 200]
    letters = [DeadLetter(make_entry(f"{size}", size), "type", "reason", History(1), 9) for size in sizes]
    await commit(spool, Transaction(dead=letters))

    assert [len(letter.entry) for letter in await list_expired(spool, 10)] == [5000]
    await expire(spool, [1], 10)
    assert [len(letter.entry) for letter in await list_expired(spool, 10)] == [400, 500]


async def test_a_letter_that_changed_since_it_was_listed_stays(spool: Spool, path: Path) -> None:
    await commit(
        spool, Transaction(dead=[make_letter("requested", 1), make_letter("died again", 1), make_letter("old", 1)])
    )
    letters = await list_expired(spool, 1000, 10)
    with inspect(path) as inspection:
        inspection.request_replay(Choice(("requested",)))
    await commit(spool, Transaction(dead=[make_letter("died again", 5000)]))

    assert await expire(spool, [letter.id for letter in letters], 1000) == 1
    assert left(path) == ["died again", "requested"]


async def test_commits_go_on_between_the_pieces_of_a_large_clean_up(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
            INSERT INTO dead_letters
            (index_name, log_id, error_type, reason, attempts, attempted_at_ms, died_at_ms, entry)
            SELECT 'i', i, 't', 'r', 1, '[]', i, zeroblob(300) FROM n"""
        )
    pieces: list[int] = []
    expire = expiry.expire

    def count(store: Store, letter_ids: Sequence[int], died_before_ms: int) -> int:
        pieces.append(len(letter_ids))
        return expire(store, letter_ids, died_before_ms)

    monkeypatch.setattr(expiry, "expire", count)
    cleaning = asyncio.create_task(retention.clean_up(spool, 10**9))
    waited: list[int] = []
    row_id = 0
    while not cleaning.done():
        row_id += 1
        before = len(pieces)
        await commit(spool, Transaction(inserts=[NewGroup(row_id, [make_entry(f"{row_id}")])]))
        waited.append(len(pieces) - before)

    assert await cleaning == 200_000
    assert len(pieces) == 400
    assert max(waited) <= 2, "a commit waits for the piece at hand, and no more than one behind it"
    assert len(waited) > 400
    assert read_rows(path, "SELECT groups, dead_letters, dead_bytes FROM totals") == [(row_id, 0, 0)]


# -- a clock that is wrong for a while


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def test_a_clock_that_was_ahead_for_a_while_deletes_nothing(path: Path, machine: Machine) -> None:
    await machine.serve(path, 30)
    await machine.bury(path, machine.make_letter("new"), machine.make_letter("a week old", 7))

    machine.jump(45)
    for hours in (5, 0, 12, 6):
        assert await machine.serve(path, hours) == 0
    machine.jump(-45)
    assert await machine.serve(path, 30) == 0
    assert left(path) == ["a week old", "new"]


async def test_a_letter_goes_after_a_day_past_its_retention_that_is_summed_over_restarts(
    path: Path, machine: Machine
) -> None:
    await machine.bury(path, machine.make_letter("old", 30), machine.make_letter("new", 28))

    for _ in range(4):
        # Time between the last look and the end is not counted.
        assert await machine.serve(path, 5.9) == 0
        machine.pass_time(500)
    assert await machine.serve(path, 2) == 1
    assert left(path) == ["new"]


async def test_time_in_which_nobody_ran_is_not_counted(path: Path, machine: Machine) -> None:
    await machine.serve(path, 30)
    await machine.bury(path, machine.make_letter("a"))

    machine.jump(60)
    assert await machine.serve(path, 23.5) == 0
    assert await machine.serve(path, 1) == 1


async def test_a_clock_that_jumps_back_makes_a_letter_wait_again(path: Path, machine: Machine) -> None:
    await machine.bury(path, machine.make_letter("old", 31))
    assert await machine.serve(path, 20) == 0

    machine.jump(-5)
    await machine.serve(path, 0)
    machine.jump(5)
    assert await machine.serve(path, 23.5) == 0
    assert await machine.serve(path, 1) == 1


@pytest.mark.parametrize("deaths_before", [0, 1])
async def test_a_letter_that_dies_while_the_clock_is_behind_between_two_looks_is_not_old_when_it_is_put_right(
    path: Path, machine: Machine, deaths_before: int
) -> None:
    await machine.bury(path, *[machine.make_letter("a")] * deaths_before)
    await machine.serve(path, 30)

    await machine.bury(path, machine.make_letter("a", 45))
    assert await machine.serve(path, 23.5) == 0
    assert await machine.serve(path, 1) == 1


async def test_a_shorter_retention_counts_at_once_only_where_a_day_was_seen(path: Path, machine: Machine) -> None:
    await machine.bury(path, machine.make_letter("a", 9))
    assert await machine.serve(path, 5, days=30) == 0
    assert await machine.serve(path, 18, days=7) == 0
    assert await machine.serve(path, 2, days=10) == 0
    assert await machine.serve(path, 0, days=7) == 1


async def test_time_that_could_not_be_noted_counts_with_the_next_look(
    spool: Spool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Retention(spool, 1, machine.clocks)
    await kept.note_clocks()
    machine.pass_time(90_000)
    with monkeypatch.context() as patch:
        patch.setitem(expiry.SQL, "note_clock", "nothing that SQLite knows")
        with pytest.raises(SpoolUnavailable):
            await kept.note_clocks()

    assert await kept.note_clocks() == machine.wall_ms - 90_000_000 - retention.DAY_MS


async def test_samples_of_the_clock_stay_few_however_long_it_runs_and_however_often_it_starts(
    path: Path, machine: Machine
) -> None:
    await machine.serve(path, 60)
    for _ in range(20):
        await machine.serve(path, 0)

    ((samples, ran_ms),) = read_rows(path, "SELECT count(*), max(ran_ms) FROM clock_samples")
    assert 144 <= samples <= 147
    assert ran_ms == 60 * 6 * 600_500


def test_a_sample_of_the_clock_is_not_taken_for_anything_else_in_a_damaged_file() -> None:
    assert salvage.verify(Row(1, (None, 5, 7), is_referenced=True), GroupCodec()) is None


# -- exported before they go


async def test_letters_are_exported_with_all_that_is_known_before_they_go(
    spool: Spool, path: Path, tmp_path: Path
) -> None:
    times = (1_700_000_000_000, 1_700_000_060_000)
    document = b'{"page":"/home","text":"\xc3\xbc"}'
    entry = b'{"create":{"_index":"i","_id":"a"}}\n' + document + b"\n"
    numbers = b'{"huge": 1e400, "long": %b, "n": 1, "n": 2}' % (b"7" * 5_000)
    damaged = b"no json\n\xff\n"
    letters = [
        DeadLetter(entry, "mapper_parsing_exception", "failed\nto parse", History(2, times), 1_700_000_060_000),
        DeadLetter(damaged, "type", "reason", History(1), 2),
        DeadLetter(
            b'{"create":{"_index":"i","_id":"n"}}\n%b\n' % numbers, "type", "Duplicate field 'n'", History(1), 1
        ),
    ]
    await commit(spool, Transaction(dead=letters))

    assert await retention.clean_up(spool, 2**45, tmp_path / "dead") == 3

    (file,) = (tmp_path / "dead").iterdir()
    assert re.fullmatch(r"spool\.dead-\d{4}-\d\d-\d\d\.ndjson", file.name)
    first, *others = file.read_text().splitlines()
    assert first.endswith(f'"document": {numbers.decode()}}}')
    lines = [json.loads(line) for line in others]
    assert lines[1] == {
        "log_id": "a",
        "index": "i",
        "error_type": "mapper_parsing_exception",
        "reason": "failed\nto parse",
        "attempts": 2,
        "attempted_at": ["2023-11-14T22:13:20.000Z", "2023-11-14T22:14:20.000Z"],
        "died_at": "2023-11-14T22:14:20.000Z",
        "document": {"page": "/home", "text": "ü"},
    }
    assert lines[0]["document"] == "no json\n\\xff\n"
    assert left(path) == []


def hurried() -> Clocks:
    """Return clocks by which half a day passes between two looks, and the wall clock hardly moves."""
    return Clocks(itertools.count(0, retention.DAY_MS / 2000).__next__, now_ms)


def exported(folder: Path) -> list[str]:
    return [json.loads(line)["log_id"] for file in folder.glob("*.ndjson") for line in file.read_text().splitlines()]


async def test_letters_of_one_day_stand_in_one_file(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LETTERS_MAX", 2)
    for round_ in range(2):
        await commit(spool, Transaction(dead=[make_letter(f"{round_}-{number}", 1) for number in range(5)]))
        await retention.clean_up(spool, 1000, tmp_path)

    assert exported(tmp_path) == [f"{round_}-{number}" for round_ in range(2) for number in range(5)]


async def test_the_spools_of_two_workers_write_to_files_of_their_own(path: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        async with open_spool(spool_path(path, number)) as spool:
            await commit(spool, Transaction(dead=[make_letter(f"of {number}", 1)]))
            await retention.clean_up(spool, 1000, tmp_path / "export")

    # One that cuts off a line left open by a crash must not meet another that is writing it.
    assert len(list((tmp_path / "export").iterdir())) == 2
    assert sorted(exported(tmp_path / "export")) == ["of 1", "of 2"]


@pytest.mark.parametrize("place", ["/dev/full/folder", "file/in/the/way"])
async def test_an_export_that_fails_deletes_nothing(spool: Spool, path: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    await commit(spool, Transaction(dead=[make_letter("old", 1)]))

    with pytest.raises(ExportFailed, match=r"FOREBAY_DEAD_EXPORT_DIR: .* cannot be written"):
        await retention.clean_up(spool, 1000, tmp_path / place)

    assert left(path) == ["old"]


def test_an_export_that_finds_the_disk_full_leaves_no_half_line(tmp_path: Path) -> None:
    letter = ExpiredLetter(1, "i", "a", "t", "r", History(1), 1, make_entry("a", 1000))
    export.append(tmp_path, "spool", [letter], NOON)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 500, limit[1]))
    try:
        with pytest.raises(ExportFailed):
            export.append(tmp_path, "spool", [letter], NOON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    assert file.read_bytes() == whole


@pytest.mark.parametrize("left_open", [b'{"log_id": "cut', b"x" * 200_000])
def test_a_line_that_a_crash_left_open_is_cut_off(tmp_path: Path, left_open: bytes) -> None:
    letter = ExpiredLetter(1, "i", "a", "t", "r", History(1), 1, make_entry("a"))
    export.append(tmp_path, "spool", [letter], NOON)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as opened:
        opened.write(left_open)

    export.append(tmp_path, "spool", [letter], NOON)

    assert [json.loads(line)["log_id"] for line in file.read_bytes().splitlines()] == ["a", "a"]
    file.write_bytes(left_open)
    export.append(tmp_path, "spool", [letter], NOON)
    assert [json.loads(line)["log_id"] for line in file.read_bytes().splitlines()] == ["a"]


async def test_the_clean_up_tells_of_an_export_that_fails_and_goes_on(
    spool: Spool, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = capture_log(monkeypatch, retention)
    monkeypatch.setattr(retention, "INTERVAL_S", 0.001)
    (tmp_path / "blocked").touch()
    await commit(spool, Transaction(dead=[make_letter("old", 1)]))
    export_to = tmp_path / "blocked"
    task = asyncio.create_task(retention.run(spool, 1, export_to, hurried()))

    await until(lambda: len(lines) > 2)
    assert left(path) == ["old"]
    (tmp_path / "blocked").unlink()
    await until(lambda: left(path) == [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lines[0]["event"] == "dead_letters_not_exported"


# -- the write-ahead log


async def test_the_clean_up_goes_on_after_a_log_whose_size_cannot_be_read(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = capture_log(monkeypatch, retention)
    monkeypatch.setattr(retention, "INTERVAL_S", 0.001)
    measure, calls = SpoolFiles.measure_wal, []

    def fail_first(files: SpoolFiles) -> int:
        calls.append(files)
        if len(calls) == 1:
            raise PermissionError("the folder is closed")
        return measure(files)

    monkeypatch.setattr(SpoolFiles, "measure_wal", fail_first)
    await commit(spool, Transaction(dead=[make_letter("old", 1)]))
    task = asyncio.create_task(retention.run(spool, 1, None, hurried()))

    await until(lambda: left(path) == [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lines[0]["event"] == "clean_up_failed"
    assert "the folder is closed" in lines[0]["cause"]


async def test_a_log_that_grows_while_somebody_reads_is_told_of_and_begins_anew_afterwards(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = capture_log(monkeypatch, retention)
    monkeypatch.setattr(retention, "LOG_BYTES_LARGE", 200_000)
    await spool.call(lambda store: store.connection.execute("PRAGMA wal_autocheckpoint = 10").fetchone())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM groups").fetchall()
        for row_id in range(1, 61):
            await commit(spool, Transaction(inserts=[NewGroup(row_id, [make_entry(os.urandom(2000).hex())])]))
        retention.warn_of_large_log(spool)
        assert [line["event"] for line in lines] == ["log_large"]
        reader.execute("COMMIT")
    size = spool.measure_log()

    for row_id in range(61, 121):
        await commit(spool, Transaction(inserts=[NewGroup(row_id, [make_entry(os.urandom(2000).hex())])]))

    assert spool.measure_log() < size + 100_000


async def test_a_dead_letter_that_is_to_be_replayed_stays(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("requested", 1), make_letter("other", 1)]))
    with inspect(path) as inspection:
        inspection.request_replay(Choice(("requested",)))

    assert await retention.clean_up(spool, 1000) == 1
    assert left(path) == ["requested"]


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

    monkeypatch.setattr("forebay.spool.store.VACUUM_PAGES_MAX", 20)
    assert await spool.call(Store.vacuum)
    # One more page may hold SQLite's notes of the others.
    assert pages - 21 <= read_rows(path, "PRAGMA page_count")[0][0] <= pages - 20
    await retention.clean_up(spool, 0)
    assert read_rows(path, "PRAGMA freelist_count")[0][0] < 20
    monkeypatch.setattr("forebay.spool.store.VACUUM_PAGES_MAX", 1000)
    assert not await spool.call(Store.vacuum)
    assert read_rows(path, "PRAGMA freelist_count") == [(0,)]


async def test_events_that_wait_never_expire(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(1, [make_entry("pending")])]))

    await retention.clean_up(spool, 2**60)

    assert read_rows(path, "SELECT id FROM groups") == [(1,)]


async def test_the_clean_up_goes_on_for_ever_whatever_fails(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "INTERVAL_S", 0.001)
    do, calls = expiry.list_expired, []

    def fail_first(store: Store, died_before_ms: int, letters_max: int) -> list[ExpiredLetter]:
        calls.append(died_before_ms)
        if len(calls) == 1:
            raise SpoolUnavailable("locked")
        return do(store, died_before_ms, letters_max)

    monkeypatch.setattr(expiry, "list_expired", fail_first)
    now = now_ms()
    letters = [make_letter("gone", now - 8 * retention.DAY_MS), make_letter("kept", now - 6 * retention.DAY_MS)]
    await commit(spool, Transaction(dead=letters))
    task = asyncio.create_task(retention.run(spool, 7, None, hurried()))

    await until(lambda: left(path) == ["kept"])
    await until(lambda: len(calls) > 3)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert left(path) == ["kept"]
