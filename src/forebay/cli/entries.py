"""Entries as they are shown, also those that are damaged: a person looks at them to find out why."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from forebay.jsontext import read_json
from forebay.model import Address, Entry, entry_address, entry_document

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str | None).decode


def read_address(entry: Entry) -> Address | None:
    """Return where an entry belongs, or None where it does not say so."""
    try:
        return entry_address(entry)
    except ValueError:
        return None


def read_document(entry: Entry) -> Raw | str:
    """Return the document, or the whole entry as text where there is none in it."""
    try:
        return read_json(entry_document(entry))
    except (ValueError, RecursionError):
        return entry.decode("utf-8", "replace")


def read_columns(document: Raw | str) -> dict[str, str | None]:
    """Return the fields of a document and of its `event_info`: texts, and everything else as it was written."""
    fields = _read_fields(document)
    fields |= _read_fields(fields.get("event_info", Raw()))
    return {name: _read_text(value) for name, value in fields.items()}


def _read_fields(document: Raw | str) -> dict[str, Raw]:
    try:
        return _decode_fields(document)
    except (ValueError, RecursionError):
        return {}


def _read_text(value: Raw) -> str | None:
    try:
        text: str | None = _decode_text(value)
    except (ValueError, RecursionError):
        return bytes(value).decode("utf-8", "replace")
    return text
