"""The command line: one file a group of commands. An error is one line on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from forebay.cli import serve
from forebay.cli.output import OutputFailed, discard, say
from forebay.errors import CommandFailed, ForebayError, NotADocument, SettingsError

EXIT_FAILED = 1
EXIT_WRONG_USE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, by default that of the process; return the exit code."""
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except CommandFailed as error:
        return _fail(str(error), error.exit_code)
    except (SettingsError, NotADocument) as error:
        return _fail(str(error), EXIT_WRONG_USE)
    except ForebayError as error:
        return _fail(" ".join(str(error).split()), EXIT_FAILED)
    except BrokenPipeError:
        discard(sys.stdout)
        return EXIT_FAILED
    return code


def _run(arguments: Sequence[str]) -> int:
    # typer and the other commands would stay in the server's memory.
    if list(arguments) == ["serve"]:
        return serve.serve()
    from forebay.cli import commands  # noqa: PLC0415

    return commands.run(arguments)


def _fail(text: str, code: int) -> int:
    # If standard error cannot be written either, the exit code remains.
    with contextlib.suppress(OutputFailed, BrokenPipeError):
        for line in text.splitlines():
            say(f"forebay: {line}", err=True)
    return code
