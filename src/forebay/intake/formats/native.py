"""Forebay's own wire format: an event as JSON, or a batch of them.

An event that is as it should be is decoded in one go. Only where that fails is it looked at field by field, by the same
types, to name every field that is wrong or to keep those that Forebay does not know.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from forebay.errors import FieldError, Rejection
from forebay.model import LOG_ID_BYTES_MAX, PARAM_DEPTH_MAX, Event, Instant

UNPROCESSABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Decoded(Struct, gc=False, frozen=True):
    """An event, and the fields of it that Forebay does not know."""

    event: Event
    extra: dict[str, Raw] | None


class Batch(NamedTuple):
    """The events of a batch, not decoded yet, and when the client sent it by its own clock."""

    events: list[Raw]
    sent_at: Instant | None


class _Envelope(Struct):
    events: list[Raw]
    sent_at: Instant | None = None


_decode = msgspec.json.Decoder(Event).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_FIELDS = {field.name: field for field in msgspec.structs.fields(Event)}
_FIELD_DECODERS = {name: msgspec.json.Decoder(field.type).decode for name, field in _FIELDS.items()}
# Possessive, so that no way back is kept for each character of a long string.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]')


def check_text(body: bytes) -> None:
    """See to it that a body is UTF-8, all of it: fields that are passed on unread are not looked at later.

    Raises:
        Rejection: 400 with the place of the first byte that is not.
    """
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Rejection(400, f"the body is not UTF-8 (byte {error.start})") from None


def decode_event(body: bytes | Raw) -> Decoded:
    """Decode an event.

    Raises:
        Rejection: 400 with every field that is wrong, or with the place where it is not JSON.
    """
    try:
        decoded = Decoded(_decode(body), None)
    except UNPROCESSABLE:
        decoded = _examine(body)
    event = decoded.event
    if event.log_id is not None and not _log_id_fits(event.log_id):
        raise _invalid((FieldError("log_id", f"must not be longer than {LOG_ID_BYTES_MAX} bytes"),))
    if _too_deep(event.param):
        raise _invalid((FieldError("param", f"must not nest deeper than {PARAM_DEPTH_MAX}"),))
    return decoded


def decode_batch(body: bytes) -> Batch:
    """Take a batch apart: a JSON array of events, or `{"events": […]}`.

    Raises:
        Rejection: 400 where it is neither.
    """
    try:
        if body.lstrip()[:1] == b"[":
            return Batch(_decode_array(body), None)
        envelope = _decode_envelope(body)
    except msgspec.ValidationError as error:
        raise Rejection(400, f'a batch is an array of events or {{"events": […]}}: {_humble(error)}') from None
    except UNPROCESSABLE as error:
        raise _not_json(error) from None
    return Batch(envelope.events, envelope.sent_at)


def _examine(body: bytes | Raw) -> Decoded:
    try:
        fields = _decode_fields(body)
    except msgspec.ValidationError as error:
        raise Rejection(400, f"an event is a JSON object: {_humble(error)}") from None
    except UNPROCESSABLE as error:
        raise _not_json(error) from None
    values: dict[str, Any] = {}
    errors = [
        FieldError(name, "is required") for name, field in _FIELDS.items() if field.required and name not in fields
    ]
    for name in _FIELDS.keys() & fields.keys():
        try:
            values[name] = _FIELD_DECODERS[name](fields[name])
        except UNPROCESSABLE as error:
            errors.append(FieldError(name, _humble(error)))
    extra = {name: raw for name, raw in fields.items() if name not in _FIELDS}
    errors += [
        FieldError(name, f"must not nest deeper than {PARAM_DEPTH_MAX}")
        for name, raw in extra.items()
        if _too_deep(raw)
    ]
    if errors:
        raise _invalid(tuple(sorted(errors)))
    return Decoded(Event(**values), extra or None)


def _log_id_fits(log_id: str) -> bool:
    # A character takes at most four bytes, so that most need no encoding to be measured.
    return len(log_id) * 4 <= LOG_ID_BYTES_MAX or len(log_id.encode()) <= LOG_ID_BYTES_MAX


def _too_deep(raw: Raw) -> bool:
    text = bytes(raw)
    if text.count(b"{") + text.count(b"[") <= PARAM_DEPTH_MAX:
        return False
    depth = 0
    for match in _BRACKETS.finditer(text):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
            if depth > PARAM_DEPTH_MAX:
                return True
        elif token in (b"}", b"]"):
            depth -= 1
    return False


def _invalid(errors: tuple[FieldError, ...]) -> Rejection:
    return Rejection(400, "the event is not valid", errors)


def _not_json(error: Exception) -> Rejection:
    if isinstance(error, RecursionError):
        return Rejection(400, "the body nests too deeply")
    return Rejection(400, f"the body is not JSON: {_humble(error)}")


def _humble(error: Exception) -> str:
    """Say msgspec's or Python's words as a reason behind a field's name."""
    text = str(error).replace("`", "").split(" - at ")[0].removeprefix("JSON is malformed: ")
    if text == "Expected str of length >= 1":
        return "must not be empty"
    if text == "Input data was truncated":
        # So msgspec says also of `"\ud83d"`, which JavaScript makes of an emoji that was cut in two.
        return "it ends too early, or an escape is one half of a surrogate pair"
    return text[:1].lower() + text[1:]
