"""A native event: its JSON becomes an `Event`, or a refusal that names every field at fault.

A valid event is decoded at once. If that fails, it is decoded field by field, by the same types, to name every wrong
field or to keep the unknown ones.
"""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.format import TOKEN
from forebay.intake.formats.json_split import is_too_deep
from forebay.model import PARAM_DEPTH_MAX, Event, ExtendedEvent, Instant

DECODING_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
TOO_DEEP = f"must not nest deeper than {PARAM_DEPTH_MAX}"

_decode = msgspec.json.Decoder(Event).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_instant_or_null = msgspec.json.Decoder(Instant | None).decode
# RFC 3339, section 5.7.
_LEAP_SECOND = re.compile(r"(.{10}[Tt ]\d\d:\d\d:)60(?:\.\d+)?(.*)", re.ASCII)
_FIELDS = {field.name: field for field in msgspec.structs.fields(Event)}
_FIELD_DECODERS = {name: msgspec.json.Decoder(field.type).decode for name, field in _FIELDS.items()}
_TIMES = frozenset({"timestamp", "sent_at"})


def check_text(text: bytes, word: str = "body") -> None:
    """Check that all of a text is UTF-8; fields that are kept without decoding are not checked later.

    Raises:
        Rejection: 400 with the position of the first byte that is not.
    """
    if text.isascii():
        return
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"the {word} is not UTF-8 (byte {error.start})") from None


def decode_event(text: bytes | Raw, word: str = "event") -> Event:
    """Decode an event whose text is UTF-8; `word` is the name of the text.

    Raises:
        Rejection: 400 with every wrong field, or with the first error if it is not JSON.
    """
    try:
        return _decode(text)
    except DECODING_ERRORS:
        return _decode_by_field(text, word)


def decode_instant(value: bytes | Raw) -> Instant | None:
    """Decode a time; a leap second becomes the last microsecond of its minute, so that it stays in its month.

    Raises:
        One of `DECODING_ERRORS`: it is none.
    """
    try:
        instant: Instant | None = _decode_instant_or_null(value)
    except msgspec.ValidationError:
        if not bytes(value).lstrip().startswith(b'"'):
            raise
        leap = _LEAP_SECOND.fullmatch(_decode_text(value))
        if leap is None:
            raise
        instant = msgspec.convert(f"{leap[1]}59.999999{leap[2]}", datetime)
    return instant


def invalid_event(*errors: FieldError) -> Rejection:
    """Return the refusal of an event with wrong fields; a long name is cut."""
    return Rejection(HTTPStatus.BAD_REQUEST, "the event is not valid", tuple(sorted(map(FieldError.cut, errors))))


def not_json(error: Exception, word: str) -> Rejection:
    """Return the refusal of a text that cannot be decoded, by the decoder's error; `word` is the name of the text."""
    if isinstance(error, RecursionError):
        return Rejection(HTTPStatus.BAD_REQUEST, f"the {word} nests too deeply")
    return Rejection(HTTPStatus.BAD_REQUEST, f"the {word} is not JSON: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    """Return msgspec's or Python's message as a reason that follows a field's name."""
    text = str(error).replace("`", "").split(" - at ")[0].removeprefix("JSON is malformed: ")
    if text == "Expected str of length >= 1":
        return "must not be empty"
    if text == "Input data was truncated":
        # msgspec says so also of `"\ud83d"`, which JavaScript makes of an emoji that was cut in two.
        return "it ends too early, or an escape is one half of a surrogate pair"
    return text[:1].lower() + text[1:]


def _decode_by_field(text: bytes | Raw, word: str) -> Event:
    try:
        fields = _decode_fields(text)
    except msgspec.ValidationError as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"an event is a JSON object: {reason_of(error)}") from None
    except DECODING_ERRORS as error:
        raise not_json(error, word) from None
    values: dict[str, Any] = {}
    errors = [
        FieldError(name, "is required") for name, field in _FIELDS.items() if field.required and name not in fields
    ]
    for name in _FIELDS.keys() & fields.keys():
        try:
            decode = decode_instant if name in _TIMES else _FIELD_DECODERS[name]
            values[name] = decode(fields[name])
        except DECODING_ERRORS as error:
            errors.append(FieldError(name, reason_of(error)))
    extra = {name: raw for name, raw in fields.items() if name not in _FIELDS and name != TOKEN}
    errors += [FieldError(name, TOO_DEEP) for name, raw in extra.items() if is_too_deep(bytes(raw))]
    if errors:
        raise invalid_event(*errors)
    return ExtendedEvent(**values, extra=extra) if extra else Event(**values)
