"""`forebay dead`: events that the sink will never take as they are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from forebay.cli.entries import read_document
from forebay.cli.output import AsJson, Limit, format_time, print_indented, print_json, print_table
from forebay.errors import SpoolError
from forebay.settings import load_settings
from forebay.spool.inspection import Choice, Inspection, Request, StoredLetter, inspect
from forebay.spool.writing import now_ms

app = typer.Typer(help="Look at dead letters: events that the sink refused for good.")

COLUMNS = ("died_at", "log_id", "error_type", "reason", "attempts", "replay")
DAY_MS = 86_400_000
SAME_LOG_ID_MAX = 1_000

LogIds = Annotated[list[str] | None, typer.Argument(metavar="LOG_ID", show_default=False)]
ErrorType = Annotated[str | None, typer.Option("--type", help="Those with this error_type.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@app.command("list")
def list_dead(*, limit: Limit = 20, error_type: ErrorType = None, as_json: AsJson = False) -> None:
    """Show dead letters, newest first."""
    with inspect(load_settings().database_url) as spool:
        letters = [_describe(letter) for letter in spool.list_dead(Choice(error_type=error_type), limit)]
        count = spool.count_dead(Choice(error_type=error_type)).letters
    if as_json:
        for letter in letters:
            print_json(letter)
        return
    if letters:
        print_table(COLUMNS, [[letter[column] for column in COLUMNS] for letter in letters])
    typer.echo(f"{len(letters)} of {count} dead letters")


@app.command()
def show(log_id: Annotated[str, typer.Argument(metavar="LOG_ID")], *, as_json: AsJson = False) -> None:
    """Show a dead letter with its document."""
    with inspect(load_settings().database_url) as spool:
        letters = [_describe(letter) for letter in spool.list_dead(Choice(log_id), SAME_LOG_ID_MAX)]
    if not letters:
        raise _unknown(log_id)
    for letter in letters:
        if as_json:
            print_json(letter)
        else:
            document = letter.pop("document")
            print_table(("field", "value"), letter.items(), head=False)
            print_indented(document)


@app.command()
def replay(
    log_ids: LogIds = None,
    *,
    error_type: ErrorType = None,
    everything: All = False,
) -> None:
    """Have the server deliver dead letters once more."""
    now = now_ms() + 1
    choices = _choose(
        {
            "LOG_ID": _by_log_id(log_ids, now),
            "--type": [Choice(error_type=error_type, died_before_ms=now)] if error_type else [],
            "--all": [Choice(died_before_ms=now)] if everything else [],
        }
    )
    with inspect(load_settings().database_url) as spool:
        _check_known(spool, choices)
        marked = sum(spool.mark_for_replay(choice) for choice in choices)
        # Also where all of them were marked before: that command may have been interrupted.
        spool.ask(Request.REPLAY)
    typer.echo(f"{marked} dead letters marked; the server takes them within a second, or when it starts")


@app.command()
def purge(
    log_ids: LogIds = None,
    *,
    older_than: Annotated[
        int | None, typer.Option(min=0, max=36_500, metavar="DAYS", help="Those that died so many days ago.")
    ] = None,
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete dead letters for good, but for those that are to be replayed."""
    now = now_ms() + 1
    choices = _choose(
        {
            "LOG_ID": _by_log_id(log_ids, now),
            "--older-than": [] if older_than is None else [Choice(died_before_ms=now - older_than * DAY_MS)],
            "--all": [Choice(died_before_ms=now)] if everything else [],
        }
    )
    with inspect(load_settings().database_url) as spool:
        _check_known(spool, choices)
        counts = [spool.count_dead(choice) for choice in choices]
        letters = sum(count.letters - count.marked for count in counts)
        if letters and not yes:
            typer.confirm(f"Delete {letters} dead letters for good?", abort=True, err=True)
        purged = sum(spool.purge(choice) for choice in choices)
    typer.echo(f"{purged} dead letters deleted")


def _by_log_id(log_ids: list[str] | None, died_before_ms: int) -> list[Choice]:
    return [Choice(log_id, died_before_ms=died_before_ms) for log_id in dict.fromkeys(log_ids or ())]


def _choose(ways: dict[str, list[Choice]]) -> list[Choice]:
    """Return the dead letters that are meant, where they were named in exactly one of the ways."""
    named = [choices for choices in ways.values() if choices]
    if len(named) != 1:
        raise typer.BadParameter("exactly one of them is needed", param_hint=list(ways))
    return named[0]


def _check_known(spool: Inspection, choices: list[Choice]) -> None:
    for choice in choices:
        if choice.log_id is not None and not spool.count_dead(choice).letters:
            raise _unknown(choice.log_id)


def _unknown(log_id: str) -> SpoolError:
    return SpoolError(f"no dead letter has the log_id {log_id}")


def _describe(letter: StoredLetter) -> dict[str, Any]:
    return {
        "log_id": letter.log_id,
        "index": letter.index_name,
        "error_type": letter.error_type,
        "reason": letter.reason,
        "attempts": letter.history.attempts,
        "died_at": format_time(letter.died_at_ms),
        "replay": letter.marked,
        "document": read_document(letter.entry),
    }
