"""`forebay dead`: events that the sink will never take as they are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from forebay.cli.choosing import with_choice, with_explicit_choice
from forebay.cli.correcting import make_entry, set_field
from forebay.cli.editing import edit_entry
from forebay.cli.entries import read_address, read_document
from forebay.cli.output import (
    AsJson,
    Limit,
    Yes,
    confirm,
    format_time,
    print_indented,
    print_json,
    print_table,
    say,
    write_raw,
)
from forebay.errors import SpoolError
from forebay.model import Entry, entry_document
from forebay.settings import load_settings
from forebay.spool.beside.all_spools import AllSpools, FoundLetter
from forebay.spool.beside.inspection import Choice, StoredLetter

app = typer.Typer(help="Look at dead letters: events that the sink refused for good.")

COLUMNS = ("died_at", "log_id", "error_type", "reason", "attempts", "replay")
SHOWN_MAX = 1_000
"""How many letters `show` shows at the most."""


@app.command("list")
@with_choice
def list_dead(choice: Choice, *, limit: Limit = 20, as_json: AsJson = False) -> None:
    """Show dead letters, newest first."""
    spools = _open(choice)
    letters = [_describe(found.letter) for found in spools.list_dead(choice, limit)]
    if as_json:
        for letter in letters:
            print_json(letter)
        return
    if letters:
        print_table(COLUMNS, [[letter[column] for column in COLUMNS] for letter in letters])
    say(f"{len(letters)} of {spools.count_dead(choice).letters} dead letters")


@app.command()
@with_explicit_choice
def show(
    choice: Choice,
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the bytes that were sent to the sink, and no more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of dead letters, with their documents."""
    spools = _open(choice)
    letters = spools.list_dead(choice, SHOWN_MAX)
    for found in letters:
        if raw:
            write_raw(found.letter.entry)
        elif as_json:
            print_json(_describe(found.letter) | {"spool": str(found.path)})
        else:
            _show(found)
    if len(letters) == SHOWN_MAX:
        say(f"forebay: of {spools.count_dead(choice).letters} the newest {SHOWN_MAX} are shown", err=True)


@app.command()
def edit(
    log_id: Annotated[str, typer.Argument(metavar="LOG_ID")],
    *,
    index: Annotated[str | None, typer.Option(help="The one of this index, where there are several.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=JSON", help="As in 'page=\"/home\"' 'param.key1=1'; several times."),
    ] = None,
    file: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(metavar="FILE", help="Take the whole document from there; - is standard input."),
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Have the server deliver it again.")] = False,
) -> None:
    """Correct the document of a dead letter, by default in $VISUAL or $EDITOR; its index and _id stay."""
    if changes and file:
        raise typer.BadParameter("only one of them can be taken", param_hint=["--set", "--file"])
    choice = Choice((log_id,), index_name=index)
    spools = _open(choice)
    found = _find_one(spools, choice)
    address = read_address(found.letter.entry)
    if address is None:
        raise SpoolError(f"the dead letter {log_id} is damaged: it does not say where it belongs")
    if file:
        entry = make_entry(address, file.read())
    elif changes:
        entry = make_entry(address, _set_fields(found.letter.entry, changes))
    else:
        entry = edit_entry(address, found.letter.entry)
    if entry == found.letter.entry and not replay:
        say("nothing was changed")
        return
    if not spools.correct(found, entry, replay=replay):
        raise SpoolError(f"the dead letter {log_id} is on its way back, or has changed; nothing was changed")
    say(f"{log_id} corrected" + ("; the server takes it within a second, or when it starts" if replay else ""))


@app.command()
@with_explicit_choice
def replay(choice: Choice) -> None:
    """Have the server deliver dead letters once more."""
    marked = _open(choice).replay(choice)
    say(f"{marked} dead letters marked; the server takes them within a second, or when it starts")


@app.command()
@with_explicit_choice
def purge(choice: Choice, *, yes: Yes = False) -> None:
    """Delete dead letters for good, but for those that are to be replayed."""
    spools = _open(choice)
    count = spools.count_dead(choice)
    letters = count.letters - count.to_replay
    if letters and not yes:
        confirm(f"Delete {letters} dead letters for good?")
    say(f"{spools.purge(choice)} dead letters deleted")


def _open(choice: Choice) -> AllSpools:
    """Return the spools; what is named must be there, so that a slip of the pen is not taken for nothing to do."""
    spools = AllSpools(load_settings().database_url)
    for log_id in choice.log_ids:
        if not spools.count_dead(Choice((log_id,))).letters:
            raise SpoolError(f"no dead letter has the log_id {log_id}")
    return spools


def _find_one(spools: AllSpools, choice: Choice) -> FoundLetter:
    found = spools.list_dead(choice, SHOWN_MAX)
    if len(found) != 1:
        places = ", ".join(f"{place.letter.index_name} in {place.path}" for place in found) or "none of that index"
        raise SpoolError(f"exactly one dead letter is needed (--index names it); there is {places}")
    return found[0]


def _set_fields(entry: Entry, changes: list[str]) -> bytes:
    document = entry_document(entry)
    for change in changes:
        field, equals, value = change.partition("=")
        if not field or not equals:
            raise typer.BadParameter(f"{change!r} is not of the form FIELD=JSON", param_hint="--set")
        document = set_field(document, field, value.encode("utf-8", "surrogateescape"))
    return document


def _show(found: FoundLetter) -> None:
    letter = _describe(found.letter) | {"spool": found.path}
    document = letter.pop("document")
    times = letter.pop("attempted_at")
    print_table(("field", "value"), [*letter.items(), *(("attempted_at", time) for time in times)], head=False)
    print_indented(document)


def _describe(letter: StoredLetter) -> dict[str, Any]:
    return {
        "log_id": letter.log_id,
        "index": letter.index_name,
        "error_type": letter.error_type,
        "reason": letter.reason,
        "attempts": letter.history.attempts,
        "attempted_at": [format_time(at_ms) for at_ms in letter.history.attempted_at_ms],
        "died_at": format_time(letter.died_at_ms),
        "replay": letter.is_to_replay,
        "document": read_document(letter.entry),
    }
