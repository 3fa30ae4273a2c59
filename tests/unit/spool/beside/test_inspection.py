"""Commands read the spool beside its owner, and move nothing themselves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forebay.clock import now_ms
from forebay.document import Document, EventInfo, encode_entry
from forebay.errors import GroupDamaged, SpoolError, SpoolUnavailable, SpoolUnusable
from forebay.history import DeadLetter, History
from forebay.model import Address, Entry
from forebay.spool import database
from forebay.spool.beside import inspection
from forebay.spool.beside.connecting import connect_beside
from forebay.spool.beside.inspection import Choice, DeadCount, Inspection, PendingEvent, inspect
from forebay.spool.beside.requests import Request
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_entry(log_id: str, index: str = "events_local_2026-11") -> Entry:
    info = EventInfo(page="/home", event="click")
    return encode_entry(Address(index, log_id), Document(NOON, NOON, log_id, "user", info))


def make_letter(log_id: str, died_at_ms: int = 1_000, error_type: str = "mapper_parsing_exception") -> DeadLetter:
    return DeadLetter(make_entry(log_id), error_type, "failed to parse", History(1), died_at_ms)


async def commit(spool: Spool, transaction: Transaction) -> Mapping[int, int]:
    future: asyncio.Future[Mapping[int, int] | SpoolUnavailable] = asyncio.get_running_loop().create_future()
    spool.commit(transaction, future.set_result)
    stored = await future
    assert not isinstance(stored, SpoolUnavailable)
    return stored


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    """Return a spool that its owner has open."""
    spool = Spool(path)
    spool.start(asyncio.get_running_loop())
    yield spool
    spool.close()


def pending_entries(found: Iterable[PendingEvent | GroupDamaged]) -> list[Entry]:
    return [event.entry for event in found if isinstance(event, PendingEvent)]


def log_ids(path: Path, choice: Choice = Choice(), letters_max: int = 100) -> list[str]:  # noqa: B008 - immutable
    with inspect(path) as view:
        return [letter.log_id for letter in view.list_dead(choice, letters_max)]


async def test_empty_spool_holds_nothing(spool: Spool, path: Path) -> None:
    del spool
    with inspect(path) as view:
        assert view.summarize() == ((0, 0, 0, 0, 0), None)
        assert list(view.list_pending(10)) == []
        assert view.list_dead(Choice(), 10) == []
        assert view.purge(Choice()) == 0


async def test_summary_counts_groups_events_bytes_and_dead_letters(spool: Spool, path: Path) -> None:
    before_ms = now_ms()
    groups = [NewGroup(1, [make_entry("a"), make_entry("b")]), NewGroup(2, [make_entry(str(n)) for n in range(100)])]
    stored = await commit(spool, Transaction(inserts=groups, dead=[make_letter("x"), make_letter("y")]))

    with inspect(path) as view:
        totals, oldest_at_ms = view.summarize()

    dead_bytes = len(make_entry("x")) + len(make_entry("y")) + 2 * len("failed to parse")
    assert totals == (2, 102, sum(stored.values()), 2, dead_bytes)
    assert oldest_at_ms is not None
    assert before_ms <= oldest_at_ms <= now_ms()


async def test_pending_events_come_oldest_first_up_to_the_limit(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(7, [make_entry("c")], History(3, (1, 2, 3), 2))]))
    await commit(spool, Transaction(inserts=[NewGroup(2, [make_entry(f"large-{n}") for n in range(100)])]))
    await commit(spool, Transaction(attempts=[(2, History(1, (9,)))]))

    with inspect(path) as view:
        everything = list(view.list_pending(1000))
        some = list(view.list_pending(2))

    assert pending_entries(everything) == [*(make_entry(f"large-{n}") for n in range(100)), make_entry("c")]
    assert [event.history for event in everything if isinstance(event, PendingEvent)] == [
        *[History(1, (9,))] * 100,
        History(3, (1, 2, 3), 2),
    ]
    assert some == everything[:2]


async def test_owner_can_go_on_while_pending_events_are_being_read(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(number, [make_entry(str(number))]) for number in range(1, 4)]))

    with inspect(path) as view:
        events = view.list_pending(10)
        assert pending_entries([next(events)]) == [make_entry("1")]
        await commit(spool, Transaction(deletes=[1, 2]))
        with contextlib.closing(connect_beside(path)) as other:
            (busy, _, _) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert pending_entries(events) == [make_entry("3")]

    assert busy == 0


async def test_damaged_group_stands_for_its_events_and_hides_no_others(spool: Spool, path: Path) -> None:
    groups = [NewGroup(5, [make_entry(str(number)) for number in range(100)]), NewGroup(6, [make_entry("a")])]
    await commit(spool, Transaction(inserts=groups))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE groups SET body = x'00' WHERE id = 5")

    with inspect(path) as view:
        damaged, whole = view.list_pending(10)

    assert isinstance(damaged, GroupDamaged)
    assert str(damaged).startswith("group 5 cannot be read: a compressed body is damaged")
    assert pending_entries([whole]) == [make_entry("a")]


async def test_dead_letters_come_newest_first_with_all_that_is_known(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("old", 1), make_letter("new", 3), make_letter("middle", 2)]))

    assert log_ids(path) == ["new", "middle", "old"]
    assert log_ids(path, letters_max=1) == ["new"]
    with inspect(path) as view:
        (letter,) = view.list_dead(Choice(("old",)), 10)
    assert letter[1:] == (
        "events_local_2026-11",
        "old",
        "mapper_parsing_exception",
        "failed to parse",
        History(1),
        1,
        False,
        make_entry("old"),
    )


CHOICES = [
    (Choice(), {"a", "b", "c"}),
    (Choice(("a",)), {"a"}),
    (Choice(("a", "c", "nobody")), {"a", "c"}),
    (Choice(("nobody",)), set()),
    (Choice(error_type="too_large"), {"b", "c"}),
    (Choice(reason="DATE ÄÖ"), {"a", "b"}),
    (Choice(reason="%"), {"c"}),
    (Choice(index_name="events_local_2026-10"), {"c"}),
    (Choice(died_before_ms=3), {"a", "b"}),
    (Choice(died_after_ms=2), {"b", "c"}),
    (Choice(died_before_ms=3, died_after_ms=2), {"b"}),
    (Choice(("a", "b"), "too_large", "date", "events_local_2026-11", 3, 2), {"b"}),
    (Choice(("a", "b"), "too_large", "100", "events_local_2026-11", 3, 2), set()),
]
LETTERS = [
    DeadLetter(make_entry("a"), "mapper_parsing_exception", "a bad date äö", History(1), 1),
    DeadLetter(make_entry("b"), "too_large", "a Date Äö too long", History(1), 2),
    DeadLetter(make_entry("c", "events_local_2026-10"), "too_large", "100% too large", History(1), 3),
]


@pytest.mark.parametrize(("choice", "chosen"), CHOICES)
async def test_choice_means_the_letters_that_fit_all_of_it(
    spool: Spool, path: Path, choice: Choice, chosen: set[str]
) -> None:
    await commit(spool, Transaction(dead=LETTERS))

    assert set(log_ids(path, choice)) == chosen
    with inspect(path) as view:
        assert view.count_dead(choice) == DeadCount(len(chosen), 0)
        assert view.request_replay(choice) == len(chosen)
        assert view.count_dead(choice) == DeadCount(len(chosen), len(chosen))
        assert view.purge(Choice()) == 3 - len(chosen)
    assert set(log_ids(path)) == chosen


@pytest.mark.parametrize(("choice", "chosen"), CHOICES)
async def test_purge_deletes_the_letters_that_fit_all_of_it(
    spool: Spool, path: Path, choice: Choice, chosen: set[str]
) -> None:
    await commit(spool, Transaction(dead=LETTERS))

    with inspect(path) as view:
        assert view.purge(choice) == len(chosen)
    assert set(log_ids(path)) == {"a", "b", "c"} - chosen


async def test_corrected_letter_holds_the_new_bytes_and_its_bytes_are_counted(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("a"), make_letter("b")]))
    entry = make_entry("a") + make_entry("a")

    with inspect(path) as view:
        (letter,) = view.list_dead(Choice(("a",)), 10)
        assert view.correct(letter, entry, replay=False)
        corrected, other = sorted(view.list_dead(Choice(), 10), key=lambda letter: letter.log_id)
        totals = view.summarize().totals

    assert corrected == letter._replace(entry=entry)
    assert other.entry == make_entry("b")
    assert totals.dead_bytes == len(entry) + len(other.entry) + 2 * len("failed to parse")


async def test_letter_that_changed_since_it_was_read_or_is_on_its_way_back_is_not_corrected(
    spool: Spool, path: Path
) -> None:
    await commit(spool, Transaction(dead=[make_letter("a")]))

    with inspect(path) as view:
        (read,) = view.list_dead(Choice(), 10)
        assert view.correct(read, b"by somebody else", replay=False)
        assert not view.correct(read, b"new", replay=True)
        (read,) = view.list_dead(Choice(), 10)
        assert read.entry == b"by somebody else"
        assert view.correct(read, b"new", replay=True)
        assert not view.correct(read, b"newer", replay=False)
        (requested,) = view.list_dead(Choice(), 10)
        assert (requested.is_to_replay, requested.entry) == (True, b"new")
        assert not view.correct(requested, b"newer", replay=True)
        assert view.list_dead(Choice(), 10) == [requested]


async def test_letter_with_damaged_times_is_shown_all_the_same(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("a")]))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE dead_letters SET attempted_at_ms = 'x', attempts = 7")

    with inspect(path) as view:
        assert [letter.history for letter in view.list_dead(Choice(), 10)] == [History(7)]


async def test_letters_that_are_to_be_replayed_are_moved_by_the_owner_alone(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("a"), make_letter("b"), make_letter("c")]))

    with inspect(path) as view:
        assert view.request_replay(Choice(("a",))) == 1
        assert view.request_replay(Choice()) == 2
        assert view.request_replay(Choice()) == 0
        view.ask(Request.REPLAY)
        view.ask(Request.REPLAY)
        view.ask(Request.RETRY)
        assert view.summarize().totals.events == 0

    assert await spool.take_requests() == {"replay", "retry"}
    events, _ = await spool.replay(1, 10)
    with inspect(path) as view:
        totals = view.summarize().totals
    assert (events, totals.events, totals.dead_letters) == (3, 3, 0)


async def test_letters_that_are_to_be_replayed_are_not_purged(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter("a"), make_letter("b")]))

    with inspect(path) as view:
        view.request_replay(Choice(("a",)))
        assert view.purge(Choice(("a",))) == 0
        assert view.purge(Choice()) == 1
    assert log_ids(path) == ["a"]


async def test_letters_that_die_meanwhile_are_left_alone(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_ms = now_ms()
    letters = [make_letter("before", started_ms), make_letter("meanwhile", started_ms + 1)]
    await commit(spool, Transaction(dead=letters))
    clock = itertools.chain([started_ms], itertools.repeat(started_ms + 1))
    monkeypatch.setattr(inspection, "now_ms", lambda: next(clock))

    with inspect(path) as view:
        assert view.request_replay(Choice()) == 1
        assert view.purge(Choice(started_ms=started_ms + 1)) == 0
        assert view.count_dead(Choice()) == DeadCount(2, 1)


async def test_letters_that_died_while_the_clock_was_ahead_are_meant_unless_they_are_to_be_old(
    spool: Spool, path: Path
) -> None:
    now = now_ms()
    await commit(spool, Transaction(dead=[make_letter("before"), make_letter("ahead", now + 3_600_000)]))

    assert log_ids(path, Choice(started_ms=now)) == ["ahead", "before"]
    assert log_ids(path, Choice(died_before_ms=now, started_ms=now)) == ["before"]
    with inspect(path) as view:
        assert view.purge(Choice(died_before_ms=now)) == 1
        assert view.request_replay(Choice()) == 1


async def test_many_letters_are_changed_in_transactions_that_leave_room_for_the_owner(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "CHUNK_ROWS", 10)
    kinds = ["rare" if number % 50 == 0 else "frequent" for number in range(1000)]
    await commit(
        spool, Transaction(dead=[make_letter(str(number), error_type=kind) for number, kind in enumerate(kinds)])
    )
    statements = watch_changes(monkeypatch)

    with inspect(path) as view:
        assert view.request_replay(Choice(error_type="rare")) == 20
        assert view.purge(Choice()) == 980

    assert len(statements) == 2 + 98


async def test_large_letters_are_changed_in_transactions_of_few_bytes(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [make_letter(log_id) for log_id in ("a", "b", "c", "d", "large" * 1000, "e", "f")]
    monkeypatch.setattr(inspection, "CHUNK_BYTES", 2 * len(letters[0].entry))
    await commit(spool, Transaction(dead=letters))
    statements = watch_changes(monkeypatch)

    with inspect(path) as view:
        assert view.request_replay(Choice(("a", "b", "c"))) == 3
        assert view.purge(Choice()) == 4

    assert len(statements) == 2 + 3


@pytest.mark.parametrize("change", [Inspection.request_replay, Inspection.purge])
async def test_the_owner_is_not_locked_out_while_letters_are_looked_for(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Inspection, Choice], int]
) -> None:
    letters = [DeadLetter(make_entry(str(n)), "type", f"<{n}>", History(1), 1) for n in range(50)]
    await commit(spool, Transaction(dead=letters))
    locked: set[str] = set()

    def look(reason: str) -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                locked.add(reason)

    watch_reasons(monkeypatch, look)
    with inspect(path) as view:
        assert change(view, Choice(reason="5>")) == 5

    assert locked - {"5>"} == {"<5>", "<15>", "<25>", "<35>", "<45>"}


@pytest.mark.parametrize("change", [Inspection.request_replay, Inspection.purge])
async def test_letters_that_changed_since_they_were_found_are_left_alone(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Inspection, Choice], int]
) -> None:
    monkeypatch.setattr(inspection, "CHUNK_ROWS", 4)
    log_ids = ("requested", "gone", "other", "again", "last")
    await commit(spool, Transaction(dead=[make_letter(log_id) for log_id in log_ids]))
    changes = iter(
        (
            "UPDATE dead_letters SET replay = 1 WHERE log_id = 'requested'",
            "DELETE FROM dead_letters WHERE log_id = 'gone'",
            "UPDATE dead_letters SET reason = 'another' WHERE log_id = 'other'",
            "UPDATE dead_letters SET died_at_ms = :now_ms WHERE log_id = 'again'",
            "INSERT INTO dead_letters VALUES (9, 'i', 'new', 't', 'failed to parse', 1, '[1]', :now_ms, 0, x'00')",
        )
    )

    def meddle(_: str) -> None:
        if statement := next(changes, None):
            time.sleep(0.002)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute(statement, {"now_ms": now_ms()})

    watch_reasons(monkeypatch, meddle)
    with inspect(path) as view:
        assert change(view, Choice(reason="failed to parse")) == 1
        left = {letter.log_id: letter.is_to_replay for letter in view.list_dead(Choice(), 10)}

    assert left.pop("last", True)
    assert left == {"requested": True, "other": False, "again": False, "new": False}


def watch_changes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return a set that gets every statement which changes dead letters."""
    statements: set[str] = set()
    connect = sqlite3.connect

    def watch(statement: str) -> None:
        if "\nUPDATE dead_letters" in statement or "\nDELETE FROM dead_letters" in statement:
            statements.add(statement)

    def connect_and_watch(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(watch)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_and_watch)
    return statements


def watch_reasons(monkeypatch: pytest.MonkeyPatch, look: Callable[[str], None]) -> None:
    """Have each reason that a statement looks at seen at that moment, while the statement is at work."""

    def fold(text: str) -> str:
        look(text)
        return text.casefold()

    class Watched(sqlite3.Connection):
        def create_function(self, name: str, narg: int, _: Any, /, *, deterministic: bool = False) -> None:
            super().create_function(name, narg, fold, deterministic=deterministic)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Watched))


def test_no_spool_is_said_and_none_is_made(path: Path) -> None:
    with pytest.raises(SpoolUnusable, match="there is no database at"), inspect(path):
        pass
    assert not path.exists()


def test_database_of_another_program_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE events (x)")

    with pytest.raises(SpoolUnusable, match="another program"), inspect(path):
        pass


async def test_spool_that_is_locked_for_long_is_an_error_of_the_spool(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await commit(spool, Transaction(dead=[make_letter("a")]))
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.01)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(SpoolError, match=r"spool\.db: database is locked"), inspect(path) as view:
            view.ask(Request.RETRY)

        assert log_ids(path) == ["a"]


def test_spool_without_an_owner_can_be_looked_into(path: Path) -> None:
    with contextlib.closing(Store(database.connect(path))) as store:
        store.write(Transaction(inserts=[NewGroup(1, [make_entry("a")])]))

    with inspect(path) as view:
        assert pending_entries(view.list_pending(10)) == [make_entry("a")]
