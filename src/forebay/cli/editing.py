"""A document is handed to the person's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import msgspec
import typer

from forebay.cli.correcting import make_entry
from forebay.errors import ForebayError, NotADocument
from forebay.model import Address, Entry, entry_document


class EditorFailed(ForebayError):
    """The editor did not end well, so that what it left behind counts for nothing."""


def edit_entry(address: Address, entry: Entry) -> Entry:
    """Let a person edit an entry's document, and return the entry then.

    Raises:
        typer.BadParameter: no editor is set, or what is set is no command.
        EditorFailed: it cannot be started, or says that it failed.
        NotADocument: what it left is none; it is kept in a file, which the text names.
    """
    command = _read_editor()
    shown = _indent(entry_document(entry))
    # Nobody else on the machine can read it.
    descriptor, name = tempfile.mkstemp(prefix="forebay-", suffix=".json")
    path = Path(name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(shown)
    try:
        edited = _run_editor(command, path)
        result = entry if edited == shown else make_entry(address, edited)
    except NotADocument as error:
        raise NotADocument(f"{error}; nothing was changed, and your text is in {path}") from None
    except ForebayError:
        path.unlink()
        raise
    path.unlink()
    return result


def _read_editor() -> list[str]:
    given = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        command = shlex.split(given)
    except ValueError as error:
        raise typer.BadParameter(f"$VISUAL or $EDITOR is no command: {given!r}: {error}") from None
    if not command:
        raise typer.BadParameter("neither $VISUAL nor $EDITOR is set; there are --set and --file, too")
    return command


def _run_editor(command: list[str], path: Path) -> bytes:
    try:
        code = subprocess.run([*command, str(path)], check=False).returncode  # noqa: S603 - their own editor
        edited = path.read_bytes()
    except OSError as error:
        raise EditorFailed(f"{command[0]}: {error.strerror}; nothing was changed") from error
    if code:
        raise EditorFailed(f"{command[0]} ended with {code}; nothing was changed")
    return edited


def _indent(document: bytes) -> bytes:
    try:
        return msgspec.json.format(document, indent=2) + b"\n"
    except msgspec.DecodeError:
        # Damaged: the person sees it as it is.
        return document
