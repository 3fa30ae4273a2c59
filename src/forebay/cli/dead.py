"""`forebay dead`: events that the sink will never take as they are."""

from __future__ import annotations

from typing import Annotated, Any, BinaryIO

import typer

from forebay.cli.editing import edit_document, encode_edited, set_field
from forebay.cli.options import (
    All,
    AsJson,
    DiedBefore,
    DiedSince,
    ErrorType,
    Index,
    Limit,
    LogIds,
    Reason,
    Yes,
    choose_letters,
)
from forebay.cli.output import (
    confirm,
    format_time,
    print_indented,
    print_json,
    print_table,
    read_address,
    read_document,
    say,
    write_raw,
)
from forebay.errors import SpoolError
from forebay.model import Entry, entry_document
from forebay.own_indices import has_own_documents
from forebay.settings import load_settings
from forebay.spool.beside.all_spools import AllSpools, FoundLetter
from forebay.spool.beside.inspection import Choice, StoredLetter

app = typer.Typer(
    help="Show, correct, replay or delete dead letters.\n\n"
    "A dead letter is an event that is delivered no more. It is kept with the reason."
)

COLUMNS = ("died_at", "log_id", "error_type", "reason", "attempts", "replay")
SHOWN_MAX = 1_000
"""Most letters that `show` prints."""


@app.command("list")
def list_dead(
    log_ids: LogIds = None,
    *,
    error_type: ErrorType = None,
    reason: Reason = None,
    index: Index = None,
    older_than: DiedBefore = None,
    newer_than: DiedSince = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    choice = choose_letters(log_ids, error_type, reason, index, older_than, newer_than)
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
def show(
    log_ids: LogIds = None,
    *,
    error_type: ErrorType = None,
    reason: Reason = None,
    index: Index = None,
    older_than: DiedBefore = None,
    newer_than: DiedSince = None,
    everything: All = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print only the bytes that were sent to the sink.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show dead letters in full, with their documents."""
    choice = choose_letters(log_ids, error_type, reason, index, older_than, newer_than, everything=everything)
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
        say(f"forebay: only the newest {SHOWN_MAX} of {spools.count_dead(choice).letters} are shown", err=True)


@app.command()
def edit(
    log_id: Annotated[str, typer.Argument(metavar="LOG_ID")],
    *,
    index: Annotated[str | None, typer.Option(help="Its index, if dead letters of several have this log_id.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=JSON",
            help="Set a field, as in 'page=\"/home\"' or 'param.key1=1'; may be repeated.",
        ),
    ] = None,
    file: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(metavar="FILE", help="Read the whole document from a file; - is standard input."),
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Have the server deliver it again.")] = False,
) -> None:
    """Correct a dead letter's document, in every spool that has it; its index and _id stay.

    Without --set or --file, the document is opened in $VISUAL or $EDITOR.
    """
    if changes and file:
        raise typer.BadParameter("only one of them can be used", param_hint=["--set", "--file"])
    choice = Choice((log_id,), index_name=index)
    spools = _open(choice)
    copies = _find_copies(spools, choice)
    entries = _correct([found.letter for found in copies], changes, file)
    corrections = list(zip(copies, entries, strict=True))
    if not replay and all(found.letter.entry == entry for found, entry in corrections):
        say("nothing was changed")
        return
    left = [str(found.path) for found, entry in corrections if not spools.correct(found, entry, replay=replay)]
    if left:
        places = ", ".join(left)
        raise SpoolError(f"the dead letter {log_id} is on its way back, or has changed; not corrected in {places}")
    where = f" in {len(copies)} spools" if len(copies) > 1 else ""
    say(f"{log_id} corrected{where}" + ("; the server takes it within a second, or when it starts" if replay else ""))


@app.command()
def replay(
    log_ids: LogIds = None,
    *,
    error_type: ErrorType = None,
    reason: Reason = None,
    index: Index = None,
    older_than: DiedBefore = None,
    newer_than: DiedSince = None,
    everything: All = False,
) -> None:
    """Have the server deliver dead letters again."""
    choice = choose_letters(log_ids, error_type, reason, index, older_than, newer_than, everything=everything)
    letters = _open(choice).replay(choice)
    say(f"{letters} dead letters requested for replay; the server takes them within a second, or when it starts")


@app.command()
def purge(
    log_ids: LogIds = None,
    *,
    error_type: ErrorType = None,
    reason: Reason = None,
    index: Index = None,
    older_than: DiedBefore = None,
    newer_than: DiedSince = None,
    everything: All = False,
    yes: Yes = False,
) -> None:
    """Delete dead letters for good, except those requested for replay."""
    choice = choose_letters(log_ids, error_type, reason, index, older_than, newer_than, everything=everything)
    spools = _open(choice)
    count = spools.count_dead(choice)
    letters = count.letters - count.to_replay
    if letters and not yes:
        confirm(f"Delete {letters} dead letters for good?")
    say(f"{spools.purge(choice)} dead letters deleted")


def _open(choice: Choice) -> AllSpools:
    """Return the spools; a log_id that no letter has is an error, so that a typing error is noticed."""
    spools = AllSpools(load_settings().database_url)
    for log_id in choice.log_ids:
        if not spools.count_dead(Choice((log_id,))).letters:
            raise SpoolError(f"no dead letter has the log_id {log_id}")
    return spools


def _find_copies(spools: AllSpools, choice: Choice) -> list[FoundLetter]:
    """Return the letters of one event: each worker that was sent it has one in its spool."""
    copies = spools.list_dead(choice, SHOWN_MAX)
    if not copies:
        raise SpoolError(f"no dead letter of {choice.index_name or 'any index'} has the log_id {choice.log_ids[0]}")
    indices = sorted({found.letter.index_name for found in copies})
    if len(indices) > 1:
        raise SpoolError(
            f"dead letters of several indices have this log_id; choose one with --index: {', '.join(indices)}"
        )
    return copies


def _correct(copies: list[StoredLetter], changes: list[str] | None, file: BinaryIO | None) -> list[Entry]:
    """Return the new entry of each letter of an event."""
    log_id = copies[0].log_id
    address = read_address(copies[0].entry)
    if address is None or any(read_address(letter.entry) is None for letter in copies):
        raise SpoolError(f"the dead letter {log_id} is damaged: its index and _id cannot be read")
    if file:
        return [encode_edited(address, file.read())] * len(copies)
    if changes:
        is_own = has_own_documents(address.index)
        return [encode_edited(address, _set_fields(letter.entry, changes, is_own=is_own)) for letter in copies]
    if len({letter.entry for letter in copies}) > 1:
        raise SpoolError(
            f"{len(copies)} spools have different documents of it, as `forebay dead show {log_id}` tells; "
            "use --set, which changes each, or --file, which replaces each"
        )
    return [edit_document(address, copies[0].entry)] * len(copies)


def _set_fields(entry: Entry, changes: list[str], *, is_own: bool) -> bytes:
    document = entry_document(entry)
    for change in changes:
        field, equals, value = change.partition("=")
        if not field or not equals:
            raise typer.BadParameter(f"{change!r} is not of the form FIELD=JSON", param_hint="--set")
        document = set_field(document, field, value.encode("utf-8", "surrogateescape"), is_own=is_own)
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
