"""Pending events are listed, and their delivery requested."""

from __future__ import annotations

import pytest

from forebay.history import History
from forebay.spool.records import NewGroup, Transaction
from unit.cli.running import (
    HOSTILE,
    HOSTILE_SHOWN,
    INDEX,
    NUMBERS,
    Folder,
    Run,
    make_document,
    make_entry,
    make_letter,
)

REFUSED = History(2, (1, 2), refusals=1, refused_status=403)


@pytest.fixture
def waiting(folder: Folder) -> Folder:
    """Return a folder with a spool of three events in two groups and a dead letter."""
    groups = [NewGroup(1, [make_entry("a"), make_entry("b", page=HOSTILE)]), NewGroup(2, [make_entry("c")], History(4))]
    folder.spool(Transaction(inserts=groups, dead=[make_letter("x")]))
    return folder


def test_list_shows_events_oldest_first_and_sums_up(run: Run, waiting: Folder) -> None:
    del waiting
    code, out, err = run("pending", "list")

    assert (code, err) == (0, "")
    head, *rows, summary = out.splitlines()
    assert head.split() == ["received_at", "attempts", "refused_status", "log_id", "page", "event", "index"]
    assert [row.split()[1:3] for row in rows] == [["0", "a"], ["0", "b"], ["4", "c"]]
    assert HOSTILE_SHOWN in rows[1]
    assert summary.startswith("3 pending events in 2 groups, ")
    assert summary.endswith("; 1 dead letters")


def test_list_prints_json_lines(run: Run, waiting: Folder) -> None:
    del waiting
    events = run("pending", "list", "--json").json_lines()

    assert [event["log_id"] for event in events] == ["a", "b", "c"]
    assert events[2] == {
        "log_id": "c",
        "index": INDEX,
        "attempts": 4,
        "refused_status": None,
        "received_at": events[0]["received_at"],
        "document": make_document(make_entry("c")),
    }


def test_list_shows_the_status_of_the_last_refusal(run: Run, folder: Folder) -> None:
    folder.spool(Transaction(inserts=[NewGroup(1, [make_entry("a")], REFUSED)]))

    assert run("pending", "list").out.splitlines()[1].split()[1:4] == ["2", "403", "a"]
    assert [event["refused_status"] for event in run("pending", "list", "--json").json_lines()] == [403]


def test_list_is_limited(run: Run, waiting: Folder) -> None:
    del waiting
    assert len(run("pending", "list", "-n", "2", "--json").json_lines()) == 2
    assert run("pending", "list", "-n", "0").out.startswith("3 pending events")


def test_empty_spool_is_summed_up(run: Run, folder: Folder) -> None:
    folder.spool(Transaction())

    assert run("pending", "list") == (0, "0 pending events in 0 groups, 0 bytes; 0 dead letters\n", "")
    assert run("pending", "list", "--json") == (0, "", "")


def test_damage_is_shown_beside_readable_events(run: Run, folder: Folder) -> None:
    groups = [NewGroup(1, [b"not\n\xffan entry\n"]), NewGroup(2, [make_entry("b")]), NewGroup(3, [make_entry("c")])]
    folder.spool(Transaction(inserts=groups))
    folder.ask_spool("UPDATE groups SET body = x'00' WHERE id = 2")

    result = run("pending", "list", "--json")
    assert [(event["log_id"], type(event["document"])) for event in result.json_lines()] == [(None, str), ("c", dict)]
    assert result.code == 0
    assert result.err.startswith("forebay: group 2 cannot be read: ")
    assert len(run("pending", "list").out.splitlines()) == 4


def test_retry_leaves_a_request_for_the_server(run: Run, waiting: Folder) -> None:
    for _ in range(2):
        code, out, err = run("pending", "retry")
        assert (code, err) == (0, "")
        assert out.startswith("asked")

    assert waiting.ask_spool("SELECT name FROM requests") == [("retry",)]


def test_events_of_all_workers_are_one_list_and_each_is_asked(run: Run, waiting: Folder) -> None:
    other = Folder(waiting.path, "sqlite3.2.db")
    other.spool(Transaction(inserts=[NewGroup(1, [make_entry("d")])]))
    other.ask_spool("UPDATE groups SET received_at_ms = 1")

    assert [event["log_id"] for event in run("pending", "list", "--json").json_lines()] == ["d", "a", "b", "c"]
    assert run("pending", "list").out.splitlines()[-1].startswith("4 pending events in 3 groups, ")
    assert run("pending", "retry").code == 0
    assert [folder.ask_spool("SELECT name FROM requests") for folder in (waiting, other)] == [[("retry",)]] * 2


@pytest.mark.parametrize(
    "command", ["pending list", "pending retry", "pending bury --all", "dead list", "dead replay --all"]
)
def test_no_spool_is_one_line_and_exit_code_1(run: Run, folder: Folder, command: str) -> None:
    code, out, err = run(*command.split())

    assert (code, out) == (1, "")
    assert err == "forebay: DATABASE_URL: there is no database at sqlite3.db; has the server run in this folder?\n"
    assert not folder.spool_path.exists()


def test_numbers_are_shown_as_they_came(run: Run, folder: Folder) -> None:
    folder.spool(Transaction(inserts=[NewGroup(9, [make_entry("numbers", param=NUMBERS)])]))

    assert run("pending", "list").code == 0
    assert f'"param": {NUMBERS.decode()}' in run("pending", "list", "--json").out
