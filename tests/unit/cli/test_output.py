"""Whatever a command prints, no terminal obeys it, any encoding can take it, and a failure to print is one line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from forebay.model import DeadLetter, History
from forebay.spool.records import NewGroup, Transaction
from unit.cli.running import HOSTILE, HOSTILE_SHOWN, Folder, Run, make_entry

FOREBAY = (sys.executable, "-c", "import sys; from forebay.cli import main; sys.exit(main())")
FOREIGN = "w\u00f6rth \u65e5\u672c \U0001f600"
FOREIGN_SHOWN = "w\\u00f6rth \\u65e5\\u672c \\ud83d\\ude00"

SHOWING = ["events tail", "events search", "dead list", "dead show --all", "pending list"]


def fill(folder: Folder, text: str) -> Folder:
    """Put a text everywhere where a command may show it."""
    entry = make_entry(f"id {text}", page=f"/{text}", label=text, param=json.dumps({text: text}).encode())
    folder.deliver(entry)
    letter = DeadLetter(entry, f"type {text}", f"because of {text}", History(1), 1_000)
    folder.spool(Transaction(inserts=[NewGroup(1, [entry])], dead=[letter]))
    return folder


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
def test_nothing_is_shown_that_a_terminal_obeys(run: Run, folder: Folder, command: str, *, as_json: bool) -> None:
    fill(folder, HOSTILE)

    code, out, err = run(*command.split(), *["--json"] * as_json)

    assert (code, err) == (0, "")
    assert HOSTILE_SHOWN in out
    assert not set(HOSTILE) - set(HOSTILE_SHOWN) & set(out)


def test_what_is_escaped_in_json_is_the_same_to_a_program(run: Run, folder: Folder) -> None:
    fill(folder, HOSTILE)

    (document,) = run("events", "tail", "--json").json_lines()

    assert document["event_info"]["label"] == HOSTILE
    assert document["event_info"]["param"] == {HOSTILE: HOSTILE}


def test_errors_are_shown_without_anything_that_a_terminal_obeys(run: Run, folder: Folder) -> None:
    fill(folder, "text")

    code, out, err = run("dead", "show", HOSTILE)

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert HOSTILE_SHOWN.removesuffix("\\u2028") in err


@pytest.mark.parametrize("command", [*SHOWING, *(f"{command} --json" for command in SHOWING)])
def test_letters_that_the_output_has_not_are_escaped(folder: Folder, environment: dict[str, str], command: str) -> None:
    fill(folder, FOREIGN)

    done = run_process({**environment, "PYTHONIOENCODING": "ascii"}, *command.split())

    assert (done.returncode, done.stderr) == (0, "")
    assert FOREIGN_SHOWN in done.stdout
    assert all(json.loads(line) for line in done.stdout.splitlines() if command.endswith("--json"))


@pytest.mark.parametrize("command", [*SHOWING, *(f"{command} --json" for command in SHOWING), "dead show --all --raw"])
def test_output_that_cannot_be_written_is_one_line(folder: Folder, environment: dict[str, str], command: str) -> None:
    fill(folder, "text")

    done = run_process(environment, *command.split(), stdout="/dev/full")

    assert (done.returncode, done.stderr) == (
        1,
        "forebay: the output cannot be written: No space left on device\n",
    )


def test_error_that_nobody_can_be_told_has_its_exit_code(folder: Folder, environment: dict[str, str]) -> None:
    del folder

    done = run_process(environment, "dead", "show", "nobody", stderr="/dev/full")

    assert (done.returncode, done.stdout) == (1, "")


def test_question_that_cannot_be_asked_deletes_nothing(folder: Folder, environment: dict[str, str]) -> None:
    fill(folder, "text")

    done = run_process(environment, "dead", "purge", "--all", stderr="/dev/full")

    assert (done.returncode, done.stdout) == (1, "")
    assert folder.ask_spool("SELECT count(*) FROM dead_letters") == [(1,)]
