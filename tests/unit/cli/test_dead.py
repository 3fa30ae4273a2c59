"""Dead letters are shown, marked for the server to replay, and purged; exactly those that were meant."""

from __future__ import annotations

import sys
from io import StringIO

import pytest

from forebay.spool import writing
from forebay.spool.records import Transaction
from unit.cli.running import HOSTILE, HOSTILE_SHOWN, INDEX, Folder, Run, make_document, make_entry, make_letter

DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def buried(folder: Folder) -> Folder:
    """Return a folder with a spool of three dead letters."""
    now_ms = writing.now_ms()
    letters = [
        make_letter("old", now_ms - 20 * DAY_MS),
        make_letter("recent", now_ms - 2 * DAY_MS),
        make_letter("large", now_ms - 2 * DAY_MS - 1, "http_413"),
    ]
    folder.spool(Transaction(dead=letters))
    return folder


def left(folder: Folder) -> set[str]:
    return {log_id for (log_id,) in folder.ask_spool("SELECT log_id FROM dead_letters")}


def marked(folder: Folder) -> set[str]:
    return {log_id for (log_id,) in folder.ask_spool("SELECT log_id FROM dead_letters WHERE replay")}


def test_list_shows_the_newest_first_and_how_many_there_are(run: Run) -> None:
    code, out, err = run("dead", "list", "-n", "2")

    assert (code, err) == (0, "")
    head, *rows, summary = out.splitlines()
    assert head.split() == ["died_at", "log_id", "error_type", "reason", "attempts", "replay"]
    assert [row.split()[1:3] for row in rows] == [["recent", "mapper_parsing_exception"], ["large", "http_413"]]
    assert HOSTILE_SHOWN in rows[0]
    assert summary == "2 of 3 dead letters"


def test_list_prints_json_lines_of_one_type(run: Run) -> None:
    (letter,) = run("dead", "list", "--type", "http_413", "--json").json_lines()

    assert letter == {
        "log_id": "large",
        "index": INDEX,
        "error_type": "http_413",
        "reason": f"because of {HOSTILE}",
        "attempts": 1,
        "died_at": letter["died_at"],
        "replay": False,
        "document": make_document(make_entry("large")),
    }


def test_empty_list_is_said(run: Run) -> None:
    assert run("dead", "list", "--type", "none") == (0, "0 of 0 dead letters\n", "")


def test_show_shows_the_reason_and_the_document(run: Run) -> None:
    code, out, err = run("dead", "show", "old")

    assert (code, err) == (0, "")
    assert f"because of {HOSTILE_SHOWN}" in out
    assert '    "page": "/home",' in out.splitlines()


def test_show_prints_json(run: Run) -> None:
    (letter,) = run("dead", "show", "old", "--json").json_lines()

    assert letter["document"] == make_document(make_entry("old"))


def test_damaged_letter_is_shown_as_it_is(run: Run, folder: Folder) -> None:
    folder.ask_spool("UPDATE dead_letters SET entry = x'ff0a7b7d0b0a' WHERE log_id = 'old'")

    assert run("dead", "show", "old", "--json").json_lines()[0]["document"] == "\ufffd\n{}\x0b\n"
    assert run("dead", "show", "old").code == 0


@pytest.mark.parametrize("command", ["show", "replay", "purge --yes"])
def test_unknown_log_id_is_one_line_and_exit_code_1(run: Run, folder: Folder, command: str) -> None:
    known = [] if command == "show" else ["old"]

    assert run("dead", *command.split(), *known, "nobody") == (
        1,
        "",
        "forebay: no dead letter has the log_id nobody\n",
    )
    assert (left(folder), marked(folder)) == ({"old", "recent", "large"}, set())


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["old", "large", "old"], {"old", "large"}),
        (["--all"], {"old", "recent", "large"}),
        (["--type", "http_413"], {"large"}),
        (["--type", "none"], set()),
    ],
)
def test_replay_marks_what_was_meant_and_asks_the_server(
    run: Run, folder: Folder, arguments: list[str], meant: set[str]
) -> None:
    code, out, err = run("dead", "replay", *arguments)

    assert (code, err) == (0, "")
    assert out.startswith(f"{len(meant)} dead letters marked")
    assert marked(folder) == meant
    assert left(folder) == {"old", "recent", "large"}
    assert folder.ask_spool("SELECT name FROM requests") == [("replay",)]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["old", "large", "old"], {"old", "large"}),
        (["--all"], {"old", "recent", "large"}),
        (["--older-than", "7"], {"old"}),
        (["--older-than", "30"], set()),
        (["--older-than", "0"], {"old", "recent", "large"}),
    ],
)
def test_purge_deletes_what_was_meant(run: Run, folder: Folder, arguments: list[str], meant: set[str]) -> None:
    assert run("dead", "purge", "--yes", *arguments) == (0, f"{len(meant)} dead letters deleted\n", "")
    assert left(folder) == {"old", "recent", "large"} - meant


def test_purge_leaves_what_is_to_be_replayed(run: Run, folder: Folder) -> None:
    run("dead", "replay", "old")

    assert run("dead", "purge", "--yes", "--all").out == "2 dead letters deleted\n"
    assert left(folder) == {"old"}


@pytest.mark.parametrize(("answer", "code", "kept"), [("y\n", 0, set()), ("n\n", 1, {"old"}), ("", 1, {"old"})])
def test_purge_asks_first(
    run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, kept: set[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(answer))

    result = run("dead", "purge", "--older-than", "7")

    assert result.code == code
    assert "Delete 1 dead letters for good?" in result.out + result.err
    assert left(folder) == {"recent", "large"} | kept


@pytest.mark.parametrize(
    "arguments",
    [["replay"], ["replay", "old", "--all"], ["replay", "--all", "--type", "x"], ["purge"], ["purge", "old", "--all"]],
)
def test_dead_letters_are_named_in_exactly_one_way(run: Run, folder: Folder, arguments: list[str]) -> None:
    code, out, err = run("dead", *arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "exactly one of them is needed" in err
    assert (left(folder), marked(folder)) == ({"old", "recent", "large"}, set())
