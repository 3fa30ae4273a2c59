"""Pending events that are to become dead letters are counted, shown and requested; no others."""

from __future__ import annotations

import sys
from io import StringIO

import pytest

from forebay.clock import now_ms
from forebay.document import Document, EventInfo, encode_entry
from forebay.history import History
from forebay.model import Address, Entry
from forebay.spool.beside.requests import Burial
from forebay.spool.records import NewGroup, Transaction
from unit.cli.running import INDEX, NOON, Folder, Run, make_entry

OTHER = "events_local_2026-10"
DAY_MS = 86_400_000

FILTERS: list[tuple[list[str], int]] = [
    (["--all"], 5),
    (["--index", OTHER], 1),
    (["--index", "events_local"], 0),
    (["--refused"], 2),
    (["--older-than", "7d"], 1),
    (["--older-than", "0min"], 5),
    (["--refused", "--older-than", "1d"], 0),
    (["a", "c"], 2),
    (["c", "--refused"], 1),
]


def make_other(log_id: str) -> Entry:
    return encode_entry(Address(OTHER, log_id), Document(NOON, NOON, log_id, "user", EventInfo("/", "a")))


@pytest.fixture(autouse=True)
def waiting(folder: Folder) -> Folder:
    """Return a folder with two spools of five events in four groups."""
    refused = History(2, (1, 2), refusals=1, refused_status=403)
    week_ago_ms = now_ms() - 8 * DAY_MS
    groups = [
        NewGroup(1, [make_entry("a")]),
        NewGroup(2, [make_other("b")], received_at_ms=week_ago_ms),
        NewGroup(3, [make_entry("c"), make_entry("d")], refused),
    ]
    folder.spool(Transaction(inserts=groups))
    other(folder).spool(Transaction(inserts=[NewGroup(1, [make_entry("e")])]))
    return folder


def other(folder: Folder) -> Folder:
    """Return the folder with the spool of the second worker."""
    return Folder(folder.path, "sqlite3.2.db")


def requests(folder: Folder) -> list[Burial]:
    return [Burial.read(name) for (name,) in folder.ask_spool("SELECT name FROM requests")]


@pytest.mark.parametrize(("options", "events"), FILTERS)
def test_chosen_events_are_counted(run: Run, waiting: Folder, options: list[str], events: int) -> None:
    code, out, err = run("pending", "bury", "--yes", *options)

    assert (code, err) == (0, "")
    if not events:
        assert out == "no pending event meets all conditions; the server was not asked\n"
        assert requests(waiting) == []
        return
    last = out.splitlines()[-1]
    assert last == f"asked the server for {events} events; it begins within a second, or when it starts"


def test_every_owner_is_asked_for_the_events_of_that_moment(run: Run, waiting: Folder) -> None:
    before_ms = now_ms()
    assert run("pending", "bury", "a", "--index", INDEX, "--yes").code == 0
    after_ms = now_ms()

    (burial,) = requests(waiting)
    assert requests(other(waiting)) == [burial]
    assert before_ms < burial.received_before_ms <= after_ms + 1
    assert burial == Burial(burial.received_before_ms, frozenset({"a"}), INDEX, also_ahead=True)


def test_events_that_were_received_while_the_clock_was_ahead_are_meant_unless_they_are_to_be_old(
    run: Run, waiting: Folder
) -> None:
    ahead_ms = now_ms() + 45 * DAY_MS
    waiting.spool(Transaction(inserts=[NewGroup(4, [make_entry("ahead")], received_at_ms=ahead_ms)]))

    assert "asked the server for 1 events" in run("pending", "bury", "ahead", "--yes").out
    assert "asked the server for 6 events" in run("pending", "bury", "--all", "--yes").out
    assert "asked the server for 5 events" in run("pending", "bury", "--older-than", "0min", "--yes").out


def test_two_burials_are_two_requests(run: Run, waiting: Folder) -> None:
    assert run("pending", "bury", "--refused", "--yes").code == 0
    assert run("pending", "bury", "--index", OTHER, "--yes").code == 0

    assert [(burial.refused, burial.index_name) for burial in requests(waiting)] == [(True, None), (False, OTHER)]


def test_bury_moves_nothing_itself(run: Run, waiting: Folder) -> None:
    assert run("pending", "bury", "--all", "--yes").code == 0

    assert waiting.ask_spool("SELECT sum(events) FROM groups") == [(4,)]
    assert waiting.ask_spool("SELECT count(*) FROM dead_letters") == [(0,)]


@pytest.mark.parametrize(("answer", "asked", "code"), [("y\n", 1, 0), ("n\n", 0, 1), ("", 0, 1)])
def test_bury_shows_the_indices_and_asks(
    run: Run, waiting: Folder, monkeypatch: pytest.MonkeyPatch, answer: str, asked: int, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(answer))
    result = run("pending", "bury", "--all")

    assert result.code == code
    assert [line.split() for line in result.out.splitlines()[:3]] == [["index", "events"], [OTHER, "1"], [INDEX, "4"]]
    assert "Make dead letters of 5 pending events, " in result.err
    assert len(requests(waiting)) == asked


def test_a_log_id_that_is_not_pending_is_an_error_that_names_it(run: Run, waiting: Folder) -> None:
    code, out, err = run("pending", "bury", "a", "nobody", "--yes")

    assert (code, out) == (1, "")
    assert err == "forebay: no pending event that meets all conditions has the log_id nobody\n"
    assert requests(waiting) == []


@pytest.mark.parametrize("options", [[], ["--yes"], ["--all", "--refused"], ["--all", "a"]])
def test_either_some_or_all_must_be_named(run: Run, waiting: Folder, options: list[str]) -> None:
    code, _, err = run("pending", "bury", *options)

    assert code == 2
    assert "either some of them or --all is needed" in err
    assert requests(waiting) == []


def test_text_that_is_not_utf8_is_refused(run: Run) -> None:
    assert run("pending", "bury", "--index", "\udcff").code == 2


def test_a_damaged_group_holds_up_no_other(run: Run, waiting: Folder) -> None:
    waiting.ask_spool("UPDATE groups SET codec = 9 WHERE id = 2")

    assert run("pending", "bury", "a", "--yes").code == 0
    assert run("pending", "bury", "b", "--yes").code == 1
