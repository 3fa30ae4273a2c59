"""Dead letters are shown, requested for replay, and purged: those that were chosen, and no others."""

from __future__ import annotations

import sys
import time
from io import StringIO

import pytest

from forebay.cli import dead
from forebay.clock import now_ms
from forebay.history import DeadLetter, History
from forebay.spool.records import Transaction
from unit.cli.running import HOSTILE, HOSTILE_SHOWN, INDEX, NUMBERS, Folder, Run, make_document, make_entry, make_letter

DAY_MS = 86_400_000

FILTERS: list[tuple[list[str], set[str]]] = [
    (["--type", "http_413"], {"large"}),
    (["--type", "none"], set()),
    (["--reason", "BECAUSE"], {"old", "recent", "large"}),
    (["--reason", "because_"], set()),
    (["--index", INDEX], {"old", "recent", "large"}),
    (["--index", "events_local"], set()),
    (["--older-than", "7d"], {"old"}),
    (["--older-than", "720h"], set()),
    (["--older-than", "0min"], {"old", "recent", "large"}),
    (["--newer-than", "7d"], {"recent", "large"}),
    (["--newer-than", "0min"], set()),
    (["--newer-than", "7d", "--older-than", "1d", "--type", "http_413", "--reason", "of"], {"large"}),
    (["old", "recent", "--newer-than", "7d"], {"recent"}),
]


@pytest.fixture(autouse=True)
def buried(folder: Folder) -> Folder:
    """Return a folder with a spool of three dead letters."""
    today_ms = now_ms()
    letters = [
        make_letter("old", today_ms - 20 * DAY_MS),
        make_letter("recent", today_ms - 2 * DAY_MS),
        make_letter("large", today_ms - 2 * DAY_MS - 1, "http_413"),
    ]
    folder.spool(Transaction(dead=letters))
    return folder


def left(folder: Folder) -> set[str]:
    return {log_id for (log_id,) in folder.ask_spool("SELECT log_id FROM dead_letters")}


def requested(folder: Folder) -> set[str]:
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
        "attempted_at": ["1970-01-01T00:00:05.000Z"],
        "died_at": letter["died_at"],
        "replay": False,
        "document": make_document(make_entry("large")),
    }


@pytest.mark.parametrize(("arguments", "meant"), FILTERS)
def test_list_and_show_print_the_chosen_letters(run: Run, arguments: list[str], meant: set[str]) -> None:
    assert {letter["log_id"] for letter in run("dead", "list", *arguments, "--json").json_lines()} == meant
    assert {letter["log_id"] for letter in run("dead", "show", *arguments, "--json").json_lines()} == meant
    assert run("dead", "list", *arguments).out.endswith(f"{len(meant)} of {len(meant)} dead letters\n")


def test_empty_list_says_so(run: Run) -> None:
    assert run("dead", "list", "--type", "none") == (0, "0 of 0 dead letters\n", "")


def test_show_shows_the_reason_and_the_document(run: Run) -> None:
    code, out, err = run("dead", "show", "old")

    assert (code, err) == (0, "")
    assert f"because of {HOSTILE_SHOWN}" in out
    assert '    "page": "/home",' in out.splitlines()


def test_show_prints_the_time_of_every_attempt_and_the_spool(run: Run, folder: Folder) -> None:
    folder.spool(Transaction(dead=[make_letter("often", history=History(1, (1_000, 61_000)))]))

    lines = [line.split() for line in run("dead", "show", "often").out.splitlines()]

    assert ["attempted_at", "1970-01-01T00:00:01.000Z"] in lines
    assert ["attempted_at", "1970-01-01T00:01:01.000Z"] in lines
    assert ["spool", "sqlite3.db"] in lines


def test_show_raw_prints_exactly_the_bytes(run: Run, folder: Folder) -> None:
    folder.ask_spool("UPDATE dead_letters SET entry = x'7b7d0a7b20226122203a20317d0a' WHERE log_id = 'old'")

    assert run("dead", "show", "old", "--raw") == (0, '{}\n{ "a" : 1}\n', "")


def test_show_says_if_there_are_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "SHOWN_MAX", 2)

    result = run("dead", "show", "--all", "--json")

    assert [letter["log_id"] for letter in result.json_lines()] == ["recent", "large"]
    assert result.err == "forebay: only the newest 2 of 3 are shown\n"


def test_show_prints_json(run: Run) -> None:
    (letter,) = run("dead", "show", "old", "--json").json_lines()

    assert letter["document"] == make_document(make_entry("old"))


def test_numbers_are_shown_as_they_came(run: Run, folder: Folder) -> None:
    entry = make_entry("numbers", param=NUMBERS)
    folder.spool(Transaction(dead=[DeadLetter(entry, "type", "Duplicate field 'n'", History(), 1)]))

    for command in (["list", "--type", "type"], ["show", "numbers"]):
        assert run("dead", *command).code == 0
        assert f'"param": {NUMBERS.decode()}' in run("dead", *command, "--json").out
    lines = run("dead", "show", "numbers").out.splitlines()
    assert {'      "huge": 1e400,', f'      "long": {"7" * 5_000},', '      "n": 1,', '      "n": 2'} <= set(lines)


def test_letter_that_is_nested_too_deeply_is_shown_as_text(run: Run, folder: Folder) -> None:
    deep = b'{"create":{"_index":"i","_id":"deep"}}\n' + b"[" * 100_000 + b"]" * 100_000 + b"\n"
    folder.spool(Transaction(dead=[DeadLetter(deep, "type", "reason", History(), 1)]))

    assert run("dead", "show", "deep", "--json").json_lines()[0]["document"] == deep.decode()


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
    assert (left(folder), requested(folder)) == ({"old", "recent", "large"}, set())


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["old", "large", "old"], {"old", "large"}),
        (["--all"], {"old", "recent", "large"}),
        *FILTERS,
    ],
)
def test_replay_marks_the_chosen_letters_and_asks_the_server(
    run: Run, folder: Folder, arguments: list[str], meant: set[str]
) -> None:
    code, out, err = run("dead", "replay", *arguments)

    assert (code, err) == (0, "")
    assert out.startswith(f"{len(meant)} dead letters requested")
    assert requested(folder) == meant
    assert left(folder) == {"old", "recent", "large"}
    assert folder.ask_spool("SELECT name FROM requests") == ([("replay",)] if meant else [])


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["old", "large", "old"], {"old", "large"}),
        (["--all"], {"old", "recent", "large"}),
        *FILTERS,
    ],
)
def test_purge_deletes_the_chosen_letters(run: Run, folder: Folder, arguments: list[str], meant: set[str]) -> None:
    assert run("dead", "purge", "--yes", *arguments) == (0, f"{len(meant)} dead letters deleted\n", "")
    assert left(folder) == {"old", "recent", "large"} - meant


def test_purge_leaves_letters_marked_for_replay(run: Run, folder: Folder) -> None:
    run("dead", "replay", "old")

    assert run("dead", "purge", "--yes", "--all").out == "2 dead letters deleted\n"
    assert left(folder) == {"old"}


@pytest.mark.parametrize(("answer", "code", "kept"), [("y\n", 0, set()), ("n\n", 1, {"old"}), ("", 1, {"old"})])
def test_purge_asks_first(
    run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, kept: set[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(answer))

    result = run("dead", "purge", "--older-than", "7d")

    assert result.code == code
    assert "Delete 1 dead letters for good?" in result.out + result.err
    assert left(folder) == {"recent", "large"} | kept


@pytest.mark.parametrize("command", ["show", "replay", "purge --yes"])
@pytest.mark.parametrize("arguments", [[], ["old", "--all"], ["--all", "--type", "x"], ["--all", "--newer-than", "1d"]])
def test_some_or_all_must_be_named(run: Run, folder: Folder, command: str, arguments: list[str]) -> None:
    code, out, err = run("dead", *command.split(), *arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "either some of them or --all is needed" in err
    assert (left(folder), requested(folder)) == ({"old", "recent", "large"}, set())


@pytest.mark.parametrize(
    "arguments",
    [["--older-than", "7"], ["--newer-than", "1w"], ["--reason", "\udcff"], ["\udcff"], ["--older-than", ""]],
)
def test_unreadable_condition_is_a_wrong_use(run: Run, folder: Folder, arguments: list[str]) -> None:
    for command in ("list", "purge --yes"):
        code, out, err = run("dead", *command.split(), *arguments)

        assert (code, out, err.count("\n")) == (2, "", 1)
    assert left(folder) == {"old", "recent", "large"}


@pytest.mark.parametrize("arguments", [["ahead"], ["--all"], ["--newer-than", "1d"]])
def test_letter_that_died_while_the_clock_was_ahead_is_found(run: Run, folder: Folder, arguments: list[str]) -> None:
    folder.spool(Transaction(dead=[make_letter("ahead", now_ms() + 45 * DAY_MS)]))

    assert run("dead", "list", "--json").json_lines()[0]["log_id"] == "ahead"
    assert run("dead", "show", *arguments, "--json").json_lines()[0]["log_id"] == "ahead"
    assert run("dead", "purge", "--older-than", "0min", "--yes").out == "3 dead letters deleted\n"
    assert run("dead", "replay", *arguments).out.startswith("1 dead letters requested")


def test_letter_that_dies_while_purge_asks_is_left_alone(
    run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: str) -> None:
        time.sleep(0.002)
        folder.spool(Transaction(dead=[make_letter("meanwhile", now_ms())]))

    monkeypatch.setattr(dead, "confirm", die)

    assert run("dead", "purge", "--all").out == "3 dead letters deleted\n"
    assert left(folder) == {"meanwhile"}


def test_letters_are_found_in_the_spools_of_all_workers(run: Run, folder: Folder) -> None:
    other = Folder(folder.path, "sqlite3.2.db")
    other.spool(Transaction(dead=[make_letter("other", now_ms() - DAY_MS)]))

    assert [letter["log_id"] for letter in run("dead", "list", "--json").json_lines()] == [
        "other",
        "recent",
        "large",
        "old",
    ]
    assert run("dead", "edit", "other", "--set", 'page="/new"', "--replay").code == 0
    assert requested(other) == {"other"}
    assert other.ask_spool("SELECT name FROM requests") == [("replay",)]
    assert folder.ask_spool("SELECT name FROM requests") == []
    assert run("dead", "purge", "--all", "--yes").out == "3 dead letters deleted\n"
    assert left(other) == {"other"}
