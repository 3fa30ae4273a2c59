"""Corrects the document of a dead letter: sets fields, or opens an editor, and checks the result."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from forebay.document import Document, EventInfo, encode_entry
from forebay.errors import ForebayError, NotADocument
from forebay.model import Address, Entry, Text, entry_document, on_one_line
from forebay.own_indices import RECEIPT, has_own_documents
from forebay.sinks.port import document_path

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Time = Annotated[datetime, Meta(tz=True)]


class EditorFailed(ForebayError):
    """The editor could not be started or ended with an error; its text is ignored."""


class _StrictInfo(EventInfo, forbid_unknown_fields=True, kw_only=True):
    page: Text
    event: Text


class _StrictDocument(Document, forbid_unknown_fields=True, kw_only=True):
    """A document with the fields of the template only, and with a time zone in every time (RFC 3339)."""

    timestamp: Time = msgspec.field(name="@timestamp")
    received_at: Time
    event_info: _StrictInfo


class _Receipt(Struct):
    received_at: Time


class _OwnDocument(Struct):
    receipt: _Receipt = msgspec.field(name=RECEIPT)


_decode_strictly = msgspec.json.Decoder(_StrictDocument).decode
_decode_own = msgspec.json.Decoder(_OwnDocument).decode
_decode_document = msgspec.json.Decoder(Document).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def set_field(document: bytes, field: str, value: bytes, *, is_own: bool = False) -> bytes:
    """Return a document with a field set; every other field stays as it was written, to the last digit.

    Args:
        document: JSON.
        field: a dotted path; `page`, `param.…` and the like are those under `event_info`.
        value: JSON.
        is_own: whether the document has a form of its own, without `event_info`.

    Raises:
        NotADocument: the path leads through something that is not an object, or the value is not JSON.
    """
    try:
        # The value is passed on undecoded, so it is checked here, and put on one line.
        value.decode()
        value = msgspec.json.format(value, indent=-1)
    except UNREADABLE as error:
        reason = f"the value is not JSON: {_explain(error)}; text needs quotes, as in '{field}=\"text\"'"
        raise _wrong(field, reason) from None
    path = field if is_own else document_path(field)
    return _set(document, path.split("."), value, field)


def edit_document(address: Address, entry: Entry) -> Entry:
    """Let a person edit an entry's document, and return the entry of the result.

    Raises:
        typer.BadParameter: no editor is set, or it is not a command line.
        EditorFailed: the editor cannot be started, or ended with an error.
        NotADocument: the result is not a valid document; it stays in a file that the message names.
    """
    editor = _read_editor()
    shown = _indent(entry_document(entry))
    # Not click.edit: it removes the text before anybody knows whether it is valid.
    descriptor, name = tempfile.mkstemp(prefix="forebay-", suffix=".json")  # readable for its owner only
    path = Path(name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(shown)
    try:
        edited = _run_editor(editor, path)
        result = entry if edited == shown else encode_edited(address, edited)
    except NotADocument as error:
        raise NotADocument(f"{error}; nothing was changed, and your text is in {path}") from None
    except ForebayError:
        path.unlink(missing_ok=True)
        raise
    path.unlink()
    return result


def encode_edited(address: Address, document: bytes) -> Entry:
    """Return the entry of an edited document, with the same index and `_id`.

    Raises:
        NotADocument: it is not a valid document, or it has another `log_id`.
    """
    try:
        document.decode()
        if has_own_documents(address.index):
            return _encode_own(address, document)
        decoded = _decode_strictly(document)
    except UNREADABLE as error:
        raise _read_error(error) from None
    if decoded.log_id != address.log_id:
        raise _wrong("log_id", f"must stay {address.log_id}: it is the document's _id")
    _check_object("event_info.param", decoded.event_info.param)
    return encode_entry(address, _decode_document(document))


def _encode_own(address: Address, document: bytes) -> Entry:
    """Return the entry of a document of a form of its own, of which only the part that is ours is checked."""
    _decode_own(document)
    return b'{"create":%b}\n%b\n' % (_encode(address), on_one_line(document.strip()))


def _set(document: bytes, path: list[str], value: bytes, field: str) -> bytes:
    name, *rest = path
    try:
        fields = _decode_fields(document)
    except UNREADABLE:
        raise _wrong(field, "there is no such field: its parent is not a JSON object") from None
    if rest:
        value = _set(bytes(fields.get(name, Raw(b"{}"))), rest, value, field)
    return _encode(fields | {name: Raw(value)})


def _check_object(field: str, value: Raw | UnsetType) -> None:
    # OpenSearch's `flat_object` takes nothing else.
    if value is not UNSET and not bytes(value).lstrip().startswith(b"{"):
        raise _wrong(field, "must be a JSON object")


def _read_editor() -> list[str]:
    given = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        command = shlex.split(given)
    except ValueError as error:
        raise typer.BadParameter(f"$VISUAL or $EDITOR is not a command: {given!r}: {error}") from None
    if not command:
        raise typer.BadParameter("neither $VISUAL nor $EDITOR is set; set one, or use --set or --file")
    return command


def _run_editor(command: list[str], path: Path) -> bytes:
    try:
        code = subprocess.run([*command, str(path)], check=False).returncode  # noqa: S603 - their own editor
        edited = path.read_bytes()
    except OSError as error:
        raise EditorFailed(f"{command[0]}: {error.strerror}; nothing was changed") from error
    if code:
        raise EditorFailed(f"{command[0]} ended with exit code {code}; nothing was changed")
    return edited


def _indent(document: bytes) -> bytes:
    try:
        return msgspec.json.format(document, indent=2) + b"\n"
    except msgspec.DecodeError:
        # Damaged: the person sees it as it is.
        return document


def _read_error(error: Exception) -> NotADocument:
    """Turn a message of msgspec, such as ``Expected `str`, got `int` - at `$.log_id` ``, into field and reason."""
    reason, _, path = str(error).replace("`", "").partition(" - at ")
    field = path.removeprefix("$").removeprefix(".")
    for words in ("Object missing required field ", "Object contains unknown field "):
        if reason.startswith(words):
            name = reason.removeprefix(words)
            return _wrong(f"{field}.{name}".lstrip("."), "is required" if "missing" in words else "is not known")
    if isinstance(error, msgspec.ValidationError):
        return _wrong(field, _explain(error))
    return _wrong(field, f"it is not JSON: {_explain(error)}")


def _wrong(field: str, reason: str) -> NotADocument:
    return NotADocument(f"{field}: {reason}" if field else reason)


def _explain(error: Exception) -> str:
    text = str(error).replace("`", "").partition(" - at ")[0].removeprefix("JSON is malformed: ")
    return "must not be empty" if text == "Expected str of length >= 1" else text[:1].lower() + text[1:]
