"""The spools of several workers are one for a command, and its request is left in the spool of the event."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from forebay.document import Document, EventInfo, encode_entry
from forebay.errors import GroupDamaged, SpoolError, SpoolUnusable
from forebay.history import DeadLetter, History
from forebay.model import Address, Entry
from forebay.spool import database
from forebay.spool.beside.all_spools import AllSpools
from forebay.spool.beside.connecting import connect_beside
from forebay.spool.beside.inspection import Choice, DeadCount, PendingEvent
from forebay.spool.beside.requests import Request
from forebay.spool.files import spool_path
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.store import Store
from unit.cli.running import NOON


def make_entry(log_id: str) -> Entry:
    return encode_entry(
        Address("events_local_2026-11", log_id), Document(NOON, NOON, log_id, "user", EventInfo("/", "a"))
    )


def fill(path: Path, groups: Sequence[tuple[int, str]] = (), letters: Sequence[tuple[int, str]] = ()) -> None:
    """Make a spool of groups of one event each, by time of receipt, and of dead letters, by time of death."""
    transaction = Transaction(
        inserts=[NewGroup(number, [make_entry(log_id)]) for number, (_, log_id) in enumerate(groups, 1)],
        dead=[DeadLetter(make_entry(log_id), "type", "reason", History(1), at_ms) for at_ms, log_id in letters],
    )
    with contextlib.closing(Store(database.connect(path))) as store:
        store.write(transaction)
        for number, (at_ms, _) in enumerate(groups, 1):
            store.connection.execute("UPDATE groups SET received_at_ms = ? WHERE id = ?", (at_ms, number))


def ask(path: Path, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(connect_beside(path)) as connection:
        return connection.execute(statement).fetchall()


def requests(*paths: Path) -> list[list[tuple[object, ...]]]:
    return [ask(path, "SELECT name FROM requests") for path in paths]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Return the spools of three workers."""
    paths = [spool_path(tmp_path / "spool.db", slot) for slot in (1, 2, 3)]
    fill(paths[0], [(10, "a1"), (40, "a2")], [(1, "x1"), (5, "x2")])
    fill(paths[1], [(20, "b1"), (30, "b2"), (50, "b3")], [(3, "y1")])
    fill(paths[2])
    return paths


@pytest.fixture
def spools(paths: list[Path]) -> AllSpools:
    return AllSpools(paths[0])


def pending(spools: AllSpools, events_max: int) -> list[Entry | str]:
    return [
        event.entry if isinstance(event, PendingEvent) else str(event).partition(":")[0]
        for event in spools.list_pending(events_max)
    ]


def letters(spools: AllSpools, choice: Choice = Choice(), letters_max: int = 10) -> list[str]:  # noqa: B008 - immutable
    return [found.letter.log_id for found in spools.list_dead(choice, letters_max)]


def test_pending_events_of_all_spools_come_oldest_first(spools: AllSpools) -> None:
    in_order = [make_entry(log_id) for log_id in ("a1", "b1", "b2", "a2", "b3")]

    assert pending(spools, 10) == in_order
    assert pending(spools, 3) == in_order[:3]
    assert pending(spools, 0) == []


def test_damaged_group_and_a_clock_that_was_set_back_leave_the_order_as_it_is(
    spools: AllSpools, paths: list[Path]
) -> None:
    ask(paths[1], "UPDATE groups SET received_at_ms = 0 WHERE id = 3")
    ask(paths[1], "UPDATE groups SET codec = 9 WHERE id = 2")

    assert pending(spools, 4) == [
        make_entry("a1"),
        make_entry("b1"),
        "group 2 cannot be read",
        make_entry("b3"),
        make_entry("a2"),
    ]


def test_dead_letters_of_all_spools_come_newest_first(spools: AllSpools, paths: list[Path]) -> None:
    assert letters(spools) == ["x2", "y1", "x1"]
    assert letters(spools, letters_max=2) == ["x2", "y1"]
    assert [found.path for found in spools.list_dead(Choice(), 10)] == [paths[0], paths[1], paths[0]]
    assert spools.count_dead(Choice()) == DeadCount(3, 0)


def test_summary_is_that_of_all(spools: AllSpools) -> None:
    totals, oldest_at_ms = spools.summarize()

    assert (totals.groups, totals.events, totals.dead_letters, oldest_at_ms) == (5, 5, 3, 10)


def test_replay_asks_the_owners_of_the_letters_alone(spools: AllSpools, paths: list[Path]) -> None:
    assert spools.replay(Choice(("y1",))) == 1
    assert requests(*paths) == [[], [("replay",)], []]
    assert spools.count_dead(Choice()) == DeadCount(3, 1)


def test_replay_that_was_interrupted_before_it_asked_can_be_repeated(spools: AllSpools, paths: list[Path]) -> None:
    ask(paths[0], "UPDATE dead_letters SET replay = 1")

    assert spools.replay(Choice(("x1",))) == 0
    assert requests(*paths) == [[("replay",)], [], []]


def test_purge_deletes_wherever_they_lie(spools: AllSpools) -> None:
    assert spools.purge(Choice(died_before_ms=4)) == 2
    assert letters(spools) == ["x2"]


def test_letter_is_corrected_where_it_lies(spools: AllSpools, paths: list[Path]) -> None:
    (found,) = spools.list_dead(Choice(("y1",)), 10)

    assert spools.correct(found, b"new", replay=False)
    assert requests(*paths) == [[], [], []]
    (found,) = spools.list_dead(Choice(("y1",)), 10)
    assert spools.correct(found, b"newer", replay=True)
    assert requests(*paths) == [[], [("replay",)], []]
    ask(paths[1], "DELETE FROM requests")
    assert not spools.correct(found, b"newest", replay=True)
    assert requests(*paths) == [[], [], []]
    assert [place.letter.entry for place in spools.list_dead(Choice(("y1",)), 10)] == [b"newer"]


def test_every_owner_is_asked_to_retry(spools: AllSpools, paths: list[Path]) -> None:
    spools.ask(Request.RETRY)

    assert requests(*paths) == [[("retry",)]] * 3


def test_spool_that_fails_is_named(spools: AllSpools, paths: list[Path]) -> None:
    with contextlib.closing(sqlite3.connect(paths[1])) as other:
        other.execute("DROP TABLE dead_letters")

    with pytest.raises(SpoolError, match=r"spool\.2\.db: no such table"):
        spools.list_dead(Choice(), 10)


def test_spools_are_found_without_the_first_and_none_is_said(paths: list[Path]) -> None:
    paths[0].unlink()
    assert letters(AllSpools(paths[0])) == ["y1"]

    for path in paths[1:]:
        path.unlink()
    with pytest.raises(SpoolUnusable, match="there is no database at"):
        AllSpools(paths[0])


def test_damaged_group_is_one(spools: AllSpools, paths: list[Path]) -> None:
    ask(paths[0], "UPDATE groups SET codec = 9")

    assert [isinstance(event, GroupDamaged) for event in spools.list_pending(10)].count(True) == 2
