"""A dead letter's document, corrected: what is set where, and whether the result is a document at all. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from forebay.errors import NotADocument
from forebay.model import Address, Document, Entry, EventInfo, Text, encode_entry
from forebay.sinks.port import document_path

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Time = Annotated[datetime, Meta(tz=True)]


class _StrictInfo(EventInfo, forbid_unknown_fields=True, kw_only=True):
    page: Text
    event: Text


class _StrictDocument(Document, forbid_unknown_fields=True, kw_only=True):
    """A document as the template knows it, with times that say their zone (RFC 3339)."""

    timestamp: Time = msgspec.field(name="@timestamp")
    received_at: Time
    event_info: _StrictInfo


_decode_strictly = msgspec.json.Decoder(_StrictDocument).decode
_decode_document = msgspec.json.Decoder(Document).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def set_field(document: bytes, field: str, value: bytes) -> bytes:
    """Return a document with a field set; everything else stays as it was written, to the last digit.

    Args:
        document: JSON.
        field: a dotted path; `page`, `param.…` and the like stand for the same under `event_info`.
        value: JSON.

    Raises:
        NotADocument: there is no such place, or the value is no JSON.
    """
    try:
        # On one line, and looked at: it is passed on unread.
        value.decode()
        value = msgspec.json.format(value, indent=-1)
    except UNREADABLE as error:
        reason = f"the value is not JSON: {_humble(error)}; text needs quotes, as in '{field}=\"text\"'"
        raise _wrong(field, reason) from None
    return _set(document, document_path(field).split("."), value, field)


def make_entry(address: Address, document: bytes) -> Entry:
    """Return the entry of a corrected document: same index, same `_id`.

    Raises:
        NotADocument: it is none, or it belongs to another event.
    """
    try:
        document.decode()
        decoded = _decode_strictly(document)
    except UNREADABLE as error:
        raise _read_error(error) from None
    if decoded.log_id != address.log_id:
        raise _wrong("log_id", f"must stay {address.log_id}: it is the document's _id")
    _check_object("event_info.param", decoded.event_info.param)
    return encode_entry(address, _decode_document(document))


def _set(document: bytes, path: list[str], value: bytes, field: str) -> bytes:
    name, *rest = path
    try:
        fields = _decode_fields(document)
    except UNREADABLE:
        raise _wrong(field, "there is no such place: what holds it is no JSON object") from None
    if rest:
        value = _set(bytes(fields.get(name, Raw(b"{}"))), rest, value, field)
    return _encode(fields | {name: Raw(value)})


def _check_object(field: str, value: Raw | UnsetType) -> None:
    # `flat_object` takes nothing else.
    if value is not UNSET and not bytes(value).lstrip().startswith(b"{"):
        raise _wrong(field, "must be a JSON object")


def _read_error(error: Exception) -> NotADocument:
    """Return msgspec's words as a field and a reason: `Expected `str`, got `int` - at `$.log_id``."""
    reason, _, place = str(error).replace("`", "").partition(" - at ")
    field = place.removeprefix("$").removeprefix(".")
    for words in ("Object missing required field ", "Object contains unknown field "):
        if reason.startswith(words):
            name = reason.removeprefix(words)
            return _wrong(f"{field}.{name}".lstrip("."), "is required" if "missing" in words else "is not known")
    if isinstance(error, msgspec.ValidationError):
        return _wrong(field, _humble(error))
    return _wrong(field, f"it is not JSON: {_humble(error)}")


def _wrong(field: str, reason: str) -> NotADocument:
    return NotADocument(f"{field}: {reason}" if field else reason)


def _humble(error: Exception) -> str:
    text = str(error).replace("`", "").partition(" - at ")[0].removeprefix("JSON is malformed: ")
    return "must not be empty" if text == "Expected str of length >= 1" else text[:1].lower() + text[1:]
