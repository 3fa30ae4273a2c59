"""The command line: one file a group of commands. An error is one line on standard error.

`forebay serve` is a command too, so nothing is imported here that the server can do without.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from forebay import __version__
from forebay.cli import bench, dead, doctor, events, index, pending, serve, token
from forebay.cli.output import OutputFailed, discard, say
from forebay.errors import ForebayError, NotADocument, SettingsError

EXIT_FAILED = 1
EXIT_WRONG_USE = 2

app = typer.Typer(
    name="forebay",
    help="Takes events over HTTP and registers them in OpenSearch in bulk.",
    add_completion=False,
    # rich would stay in the server's memory.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.add_typer(events.app, name="events")
app.add_typer(pending.app, name="pending")
app.add_typer(dead.app, name="dead")
app.add_typer(index.app, name="index")
app.command("token")(token.token)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        say(f"forebay {__version__}")
        raise typer.Exit


@app.callback()
def _take_options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options before a command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, by default that of the process; return the exit code."""
    try:
        code = app(arguments, prog_name="forebay", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _fail(_explain(error), error.exit_code)
    except typer.Abort:
        return _fail("aborted", EXIT_FAILED)
    except (SettingsError, NotADocument) as error:
        return _fail(str(error), EXIT_WRONG_USE)
    except ForebayError as error:
        return _fail(" ".join(str(error).split()), EXIT_FAILED)
    except BrokenPipeError:
        discard(sys.stdout)
        return EXIT_FAILED
    return code or 0


def _explain(error: typer.TyperException) -> str:
    message = " ".join(error.format_message().split())
    # Errors that the command itself raised do not know their command.
    context = getattr(error, "ctx", None)
    return f"{message.rstrip('.')}; see {context.command_path} --help" if context else message


def _fail(text: str, code: int) -> int:
    # If standard error cannot be written either, the exit code remains.
    with contextlib.suppress(OutputFailed, BrokenPipeError):
        for line in text.splitlines():
            say(f"forebay: {line}", err=True)
    return code
