"""Forebay's own wire format: an event as JSON, or a batch of them.

A valid event is decoded at once. If that fails, it is decoded field by field, by the same types, to name every wrong
field or to store the unknown ones. A batch that cannot be decoded as a whole is split into its events first, so that a
bad event never costs the others.
"""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.json_split import WHITE_SPACE, NotSplit, split_array, split_object
from forebay.model import LOG_ID_BYTES_MAX, PARAM_DEPTH_MAX, Event, Instant

UNPROCESSABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Decoded(Struct, gc=False, frozen=True):
    """An event, and its fields that Forebay does not know."""

    event: Event
    extra: dict[str, Raw] | None


class Batch(NamedTuple):
    """The events of a batch, not decoded yet, and the time at which the client sent it, by its own clock.

    Attributes:
        is_checked: whether all of it is valid JSON and UTF-8; if not, `decode_unchecked` is for its events.
    """

    events: list[Raw]
    sent_at: Instant | None
    is_checked: bool = True


class _Envelope(Struct):
    events: list[Raw]
    sent_at: Instant | None = None


_decode = msgspec.json.Decoder(Event).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_instant_or_null = msgspec.json.Decoder(Instant | None).decode
# RFC 3339, section 5.7.
_LEAP_SECOND = re.compile(r"(.{10}[Tt ]\d\d:\d\d:)60(?:\.\d+)?(.*)", re.ASCII)
_FIELDS = {field.name: field for field in msgspec.structs.fields(Event)}
_FIELD_DECODERS = {name: msgspec.json.Decoder(field.type).decode for name, field in _FIELDS.items()}
_TIMES = frozenset({"timestamp", "sent_at"})
# Possessive, so that no backtracking is stored for each character of a long string.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]')


def check_text(text: bytes, name: str = "body") -> None:
    """Check that all of a text is UTF-8; fields that are stored without decoding are not checked later.

    Raises:
        Rejection: 400 with the position of the first byte that is not.
    """
    if text.isascii():
        return
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"the {name} is not UTF-8 (byte {error.start})") from None


def decode_event(body: bytes | Raw) -> Decoded:
    """Decode an event.

    Raises:
        Rejection: 400 with every wrong field, or with the first error if it is not JSON.
    """
    try:
        decoded = Decoded(_decode(body), None)
    except UNPROCESSABLE:
        decoded = _decode_by_field(body)
    event = decoded.event
    if event.log_id is not None and not _log_id_fits(event.log_id):
        raise _invalid((FieldError("log_id", f"must not be longer than {LOG_ID_BYTES_MAX} bytes"),))
    if _is_too_deep(event.param):
        raise _invalid((FieldError("param", f"must not nest deeper than {PARAM_DEPTH_MAX}"),))
    return decoded


def decode_unchecked(part: Raw) -> Decoded:
    """Decode an event of a batch that is not known to be UTF-8.

    Raises:
        Rejection: 400 as `check_text` and `decode_event`.
    """
    check_text(bytes(part), "event")
    return decode_event(part)


def decode_batch(body: bytes) -> Batch:
    """Decode a batch down to its events: a JSON array of them, or `{"events": […]}`.

    Raises:
        Rejection: 400 if it is neither.
    """
    try:
        check_text(body)
        if body.lstrip()[:1] == b"[":
            return Batch(_decode_array(body), None)
        envelope = _decode_envelope(body)
    except Rejection as error:
        return _split_batch(body, error)
    except UNPROCESSABLE as error:
        return _split_batch(body, _no_batch(error))
    return Batch(envelope.events, envelope.sent_at)


def _split_batch(body: bytes, error: Rejection) -> Batch:
    """Split a batch that cannot be decoded as a whole; raise `error` if it cannot be split either."""
    try:
        if body.lstrip(WHITE_SPACE)[:1] == b"[":
            return Batch([Raw(part) for part in split_array(body)], None, is_checked=False)
        fields = _envelope_fields(split_object(body))
        events = [Raw(part) for part in split_array(fields["events"])]
        sent_at = _decode_instant(fields.get("sent_at", b"null"))
    except (NotSplit, KeyError):
        raise error from None
    except UNPROCESSABLE as reason:
        raise _no_batch(reason) from None
    return Batch(events, sent_at, is_checked=False)


def _envelope_fields(fields: list[tuple[bytes, bytes]]) -> dict[str, bytes]:
    named = {}
    for key, value in fields:
        try:
            named[_decode_text(key)] = value
        except UNPROCESSABLE:
            # An unreadable name is an unknown one.
            continue
    return named


def _no_batch(error: Exception) -> Rejection:
    if isinstance(error, msgspec.ValidationError):
        return Rejection(
            HTTPStatus.BAD_REQUEST, f'a batch is an array of events or {{"events": […]}}: {_reason(error)}'
        )
    return _not_json(error, "body")


def _decode_by_field(body: bytes | Raw) -> Decoded:
    try:
        fields = _decode_fields(body)
    except msgspec.ValidationError as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"an event is a JSON object: {_reason(error)}") from None
    except UNPROCESSABLE as error:
        raise _not_json(error, "event" if isinstance(body, Raw) else "body") from None
    values: dict[str, Any] = {}
    errors = [
        FieldError(name, "is required") for name, field in _FIELDS.items() if field.required and name not in fields
    ]
    for name in _FIELDS.keys() & fields.keys():
        try:
            decode = _decode_instant if name in _TIMES else _FIELD_DECODERS[name]
            values[name] = decode(fields[name])
        except UNPROCESSABLE as error:
            errors.append(FieldError(name, _reason(error)))
    extra = {name: raw for name, raw in fields.items() if name not in _FIELDS}
    errors += [
        FieldError(name, f"must not nest deeper than {PARAM_DEPTH_MAX}")
        for name, raw in extra.items()
        if _is_too_deep(raw)
    ]
    if errors:
        raise _invalid(tuple(sorted(errors)))
    return Decoded(Event(**values), extra or None)


def _decode_instant(value: bytes | Raw) -> Instant | None:
    """Decode a time; a leap second becomes the last microsecond of its minute, so that it stays in its month."""
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


def _log_id_fits(log_id: str) -> bool:
    # A character has at most four bytes, so most need no encoding to be measured.
    return len(log_id) * 4 <= LOG_ID_BYTES_MAX or len(log_id.encode()) <= LOG_ID_BYTES_MAX


def _is_too_deep(raw: Raw) -> bool:
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
    return Rejection(HTTPStatus.BAD_REQUEST, "the event is not valid", errors)


def _not_json(error: Exception, name: str) -> Rejection:
    if isinstance(error, RecursionError):
        return Rejection(HTTPStatus.BAD_REQUEST, f"the {name} nests too deeply")
    return Rejection(HTTPStatus.BAD_REQUEST, f"the {name} is not JSON: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return msgspec's or Python's message as a reason that follows a field's name."""
    text = str(error).replace("`", "").split(" - at ")[0].removeprefix("JSON is malformed: ")
    if text == "Expected str of length >= 1":
        return "must not be empty"
    if text == "Input data was truncated":
        # msgspec says so also of `"\ud83d"`, which JavaScript makes of an emoji that was cut in two.
        return "it ends too early, or an escape is one half of a surrogate pair"
    return text[:1].lower() + text[1:]
