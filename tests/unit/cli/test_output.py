"""No terminal obeys an output, any encoding can hold it, and a failure to print is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import TypeAlias

import pytest

from forebay.cli import main
from forebay.history import DeadLetter, History
from forebay.spool.records import NewGroup, Transaction
from unit.cli.running import FOREBAY, HOSTILE, HOSTILE_SHOWN, Folder, Run, make_entry

FOREIGN = "w\u00f6rth \u65e5\u672c \U0001f600"
CANNOT_BE_WRITTEN = "forebay: the output cannot be written: No space left on device\n"
FOREIGN_SHOWN = "w\\u00f6rth \\u65e5\\u672c \\ud83d\\ude00"

SHOWING = ["events tail", "events search", "dead list", "dead show --all", "pending list"]


def fill(folder: Folder, text: str) -> Folder:
    """Put a text wherever a command may show it."""
    entry = make_entry(f"id {text}", page=f"/{text}", label=text, param=json.dumps({text: text}).encode())
    folder.deliver(entry)
    letter = DeadLetter(entry, f"type {text}", f"because of {text}", History(1), 1_000)
    folder.spool(Transaction(inserts=[NewGroup(1, [entry])], dead=[letter]))
    return folder


Print: TypeAlias = Callable[..., int]
"""Runs a command whose outputs go to files; returns the exit code."""


@pytest.fixture
def print_to(monkeypatch: pytest.MonkeyPatch) -> Print:
    def print_to(*arguments: str, stdout: str, stderr: str, encoding: str = "utf-8") -> int:
        with open(stdout, "w", encoding=encoding) as out, open(stderr, "w", encoding=encoding) as err:  # noqa: PTH123
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stderr", err)
            return main(arguments)

    return print_to


def run_process(
    environment: dict[str, str], *arguments: str, stdout: str | None = None, stderr: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process, whose outputs may go to files."""
    redirections = f"{f'>{stdout}' if stdout else ''} {f'2>{stderr}' if stderr else ''}"
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirections}', "sh", *FOREBAY, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", SHOWING)
def test_no_terminal_obeys_an_output(run: Run, folder: Folder, command: str, *, as_json: bool) -> None:
    fill(folder, HOSTILE)

    code, out, err = run(*command.split(), *["--json"] * as_json)

    assert (code, err) == (0, "")
    assert HOSTILE_SHOWN in out
    assert not set(HOSTILE) - set(HOSTILE_SHOWN) & set(out)


def test_escaped_json_is_the_same_to_a_program(run: Run, folder: Folder) -> None:
    fill(folder, HOSTILE)

    (document,) = run("events", "tail", "--json").json_lines()

    assert document["event_info"]["label"] == HOSTILE
    assert document["event_info"]["param"] == {HOSTILE: HOSTILE}


def test_no_terminal_obeys_an_error(run: Run, folder: Folder) -> None:
    fill(folder, "text")

    code, out, err = run("dead", "show", HOSTILE)

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert HOSTILE_SHOWN.removesuffix("\\u2028") in err


@pytest.mark.parametrize("command", [*SHOWING, *(f"{command} --json" for command in SHOWING)])
def test_characters_that_the_output_lacks_are_escaped(folder: Folder, print_to: Print, command: str) -> None:
    fill(folder, FOREIGN)

    assert print_to(*command.split(), stdout="out", stderr="err", encoding="ascii") == 0

    out = folder.path.joinpath("out").read_text("ascii")
    assert folder.path.joinpath("err").read_text() == ""
    assert FOREIGN_SHOWN in out
    assert all(json.loads(line) for line in out.splitlines() if command.endswith("--json"))


@pytest.mark.parametrize("command", [*SHOWING, *(f"{command} --json" for command in SHOWING), "dead show --all --raw"])
def test_output_that_cannot_be_written_is_one_line(folder: Folder, print_to: Print, command: str) -> None:
    fill(folder, "text")

    assert print_to(*command.split(), stdout="/dev/full", stderr="err") == 1
    assert folder.path.joinpath("err").read_text() == CANNOT_BE_WRITTEN


@pytest.mark.parametrize("command", ["events tail", "dead show --all --raw"])
def test_process_says_nothing_more_when_it_ends(folder: Folder, environment: dict[str, str], command: str) -> None:
    fill(folder, "text")

    done = run_process(environment, *command.split(), stdout="/dev/full")

    assert (done.returncode, done.stderr) == (1, CANNOT_BE_WRITTEN)


def test_error_that_nobody_can_be_told_has_its_exit_code(folder: Folder, environment: dict[str, str]) -> None:
    del folder

    done = run_process(environment, "dead", "show", "nobody", stderr="/dev/full")

    assert (done.returncode, done.stdout) == (1, "")


def test_question_that_cannot_be_asked_deletes_nothing(folder: Folder, environment: dict[str, str]) -> None:
    fill(folder, "text")

    done = run_process(environment, "dead", "purge", "--all", stderr="/dev/full")

    assert (done.returncode, done.stdout) == (1, "")
    assert folder.ask_spool("SELECT count(*) FROM dead_letters") == [(1,)]
