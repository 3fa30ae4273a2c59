"""All commands and their options, as typer reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from forebay import __version__
from forebay.cli import bench, dead, deny, doctor, events, index, pending, revoking, serve, token
from forebay.cli.output import say
from forebay.errors import CommandFailed

EXIT_FAILED = 1

app = typer.Typer(
    name="forebay",
    help="Takes events over HTTP and registers them in OpenSearch in bulk.",
    add_completion=False,
    # The same text on every terminal and in the reference.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.add_typer(events.app, name="events")
app.add_typer(pending.app, name="pending")
app.add_typer(dead.app, name="dead")
app.add_typer(index.app, name="index")
token.app.command("revoke")(revoking.revoke)
token.app.command("unrevoke")(revoking.unrevoke)
token.app.command("list")(revoking.list_revoked)
app.add_typer(token.app, name="token")
app.add_typer(deny.app, name="deny")
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


def run(arguments: Sequence[str]) -> int:
    """Run a command; return the exit code.

    Raises:
        CommandFailed: the arguments are wrong, or a person did not confirm.
    """
    try:
        return app(arguments, prog_name="forebay", standalone_mode=False) or 0
    except typer.TyperException as error:
        raise CommandFailed(_explain(error), error.exit_code) from error
    except typer.Abort as error:
        raise CommandFailed("aborted", EXIT_FAILED) from error


def _explain(error: typer.TyperException) -> str:
    message = " ".join(error.format_message().split())
    # Errors that the command itself raised do not know their command.
    context = getattr(error, "ctx", None)
    return f"{message.rstrip('.')}; see {context.command_path} --help" if context else message
