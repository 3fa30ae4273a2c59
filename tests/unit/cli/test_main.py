"""Every error is one line, and the exit code tells a wrong use from a failure."""

from __future__ import annotations

import subprocess
import sys

import pytest

from forebay import __version__, server
from forebay.errors import SettingsError, SinkUnreachable, SpoolUnusable
from forebay.settings import Settings
from unit.cli.running import FOREBAY, Folder, Run, make_entry


def test_version_is_printed(run: Run) -> None:
    assert run("--version") == (0, f"forebay {__version__}\n", "")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "serve",
        "token",
        "events",
        "events tail",
        "events search",
        "pending",
        "dead purge",
        "dead edit",
        "index init",
        "index prune",
    ],
)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    code, out, err = run(*command.split(), "--help")

    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: forebay {command}".rstrip())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command; see forebay --help"),
        (["events"], "Missing command; see forebay events --help"),
        (["evnts"], "No such command 'evnts'. Did you mean 'events'?; see forebay --help"),
        (
            ["events", "tail", "--jsn"],
            "No such option: --jsn (Possible options: --json); see forebay events tail --help",
        ),
        (["events", "tail", "-n", "many"], "Invalid value for '-n' / '--limit'"),
        (["events", "search", "-n", "10001"], "Invalid value for '-n' / '--limit'"),
        (["dead", "edit"], "Missing argument 'LOG_ID'; see forebay dead edit --help"),
        (["dead", "show"], "either some of them or --all is needed; see forebay dead show --help"),
        (["serve", "now\x1b[31m\nplease"], "(now\\x1b[31m\\x0aplease)"),
        (["events", "count", "\x1b[31m\nx=1"], "'\\x1b[31m\\nx'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(run: Run, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("forebay: ")
    assert said in err


def test_wrong_setting_is_one_line_a_variable_and_exit_code_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_PORT", "many")
    monkeypatch.setenv("OPEN_SEARCH_DNS", "ftp://user:hunter2@host")

    code, out, err = run("events", "count")

    assert (code, out, err.count("\n")) == (2, "", 2)
    assert "hunter2" not in err
    assert all(line.startswith("forebay: ") for line in err.splitlines())
    assert "forebay: SERVER_PORT: 'many' is not allowed" in err


@pytest.mark.parametrize(
    ("error", "code"), [(SettingsError("no"), 2), (SpoolUnusable("no"), 1), (SinkUnreachable("no"), 1)]
)
def test_server_that_cannot_start_says_why_on_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(settings: Settings) -> int:
        del settings
        raise error

    monkeypatch.setattr(server, "run", fail)

    assert run("serve") == (code, "", "forebay: no\n")


def test_exit_code_of_the_server_is_that_of_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "run", lambda settings: settings.server_port)
    monkeypatch.setenv("SERVER_PORT", "7")

    assert run("serve") == (7, "", "")


@pytest.mark.parametrize("events", [1, 1_000])
def test_closed_pipe_is_no_traceback(folder: Folder, environment: dict[str, str], events: int) -> None:
    # The second output is more than a pipe holds. The reader is gone before the first line.
    folder.deliver(*(make_entry(f"{number:099}") for number in range(events)))

    done = subprocess.run(
        ["sh", "-c", 'exec 3>&1; ("$@"; echo "code $?" >&3) | true', "sh", *FOREBAY, "events", "tail", "-n", "9999"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("code 1\n", "")


def test_server_is_started_without_modules_that_only_other_commands_need(environment: dict[str, str]) -> None:
    code = "import sys, forebay.cli; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert not {"aiohttp", "forebay.cli.commands", "forebay.server", "uvicorn", "typer"} & set(
        loaded.stdout.splitlines()
    )
