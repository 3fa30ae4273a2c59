"""Forebay's own wire format: an event as JSON, or a batch of them.

An event that is as it should be is decoded in one go. Only where that fails is it looked at field by field, by the same
types, to name every field that is wrong or to keep those that Forebay does not know. Likewise a batch that cannot be
decoded as a whole is cut into its events first, so that one of them never costs the others.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from forebay.errors import FieldError, Rejection
from forebay.model import LOG_ID_BYTES_MAX, PARAM_DEPTH_MAX, Event, Instant

WHITE_SPACE = b" \t\n\r"
"""RFC 8259, section 2: less than Python takes for white space."""

STEPS_MAX = 200_000
"""Most steps that are taken for one text, each under a microsecond; a text that needs more is left whole. An event
takes one to three of them, and two more for each bracket in it that holds others."""

UNPROCESSABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Decoded(Struct, gc=False, frozen=True):
    """An event, and the fields of it that Forebay does not know."""

    event: Event
    extra: dict[str, Raw] | None


class Batch(NamedTuple):
    """The events of a batch, not decoded yet, and when the client sent it by its own clock.

    Attributes:
        is_checked: whether all of it is known to be JSON and UTF-8; else `decode_unchecked` is for its events.
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
# Possessive, so that no way back is kept for each character of a long string.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'[\[{](?:[^"\[\]{}]++|%b)*+[\]}]' % _STRING
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|%b|%b)*+["\[\]{}]' % (_STRING, _FLAT), re.DOTALL).match
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|%b|%b)*+["\[\]{},]' % (_STRING, _FLAT), re.DOTALL).match
_KEY = re.compile(rb"[ \t\n\r]*(%b)[ \t\n\r]*:" % _STRING, re.DOTALL).match
_BRACKETS = re.compile(rb"%b|[\[\]{}]" % _STRING, re.DOTALL)


def check_text(text: bytes, name: str = "body") -> None:
    """See to it that a text is UTF-8, all of it: fields that are passed on unread are not looked at later.

    Raises:
        Rejection: 400 with the place of the first byte that is not.
    """
    if text.isascii():
        return
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise Rejection(400, f"the {name} is not UTF-8 (byte {error.start})") from None


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


def decode_unchecked(part: Raw) -> Decoded:
    """Decode an event of a batch that is not known to be UTF-8.

    Raises:
        Rejection: 400 as of `check_text` and `decode_event`.
    """
    check_text(bytes(part), "event")
    return decode_event(part)


def decode_batch(body: bytes) -> Batch:
    """Take a batch apart: a JSON array of events, or `{"events": […]}`.

    Raises:
        Rejection: 400 where it is neither.
    """
    try:
        check_text(body)
        if body.lstrip()[:1] == b"[":
            return Batch(_decode_array(body), None)
        envelope = _decode_envelope(body)
    except Rejection as error:
        return _cut_batch(body, error)
    except UNPROCESSABLE as error:
        return _cut_batch(body, _no_batch(error))
    return Batch(envelope.events, envelope.sent_at)


def _cut_batch(body: bytes, error: Rejection) -> Batch:
    """Take a batch apart that cannot be decoded as a whole; if it cannot be cut either, raise `error`."""
    try:
        if body.lstrip(WHITE_SPACE)[:1] == b"[":
            return Batch([Raw(part) for part in cut_array(body)], None, is_checked=False)
        fields = _envelope_fields(cut_object(body))
        events = [Raw(part) for part in cut_array(fields["events"])]
        sent_at = _decode_instant(fields.get("sent_at", b"null"))
    except (NotCut, KeyError):
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
            # It is no name that is known here, whatever it is.
            continue
    return named


def _no_batch(error: Exception) -> Rejection:
    if isinstance(error, msgspec.ValidationError):
        return Rejection(400, f'a batch is an array of events or {{"events": […]}}: {_humble(error)}')
    return _not_json(error, "body")


def _examine(body: bytes | Raw) -> Decoded:
    try:
        fields = _decode_fields(body)
    except msgspec.ValidationError as error:
        raise Rejection(400, f"an event is a JSON object: {_humble(error)}") from None
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


def _decode_instant(value: bytes | Raw) -> Instant | None:
    """Decode a time, a leap second too: as the last microsecond of its minute, so that it stays in its month."""
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


def _not_json(error: Exception, name: str) -> Rejection:
    if isinstance(error, RecursionError):
        return Rejection(400, f"the {name} nests too deeply")
    return Rejection(400, f"the {name} is not JSON: {_humble(error)}")


def _humble(error: Exception) -> str:
    """Say msgspec's or Python's words as a reason behind a field's name."""
    text = str(error).replace("`", "").split(" - at ")[0].removeprefix("JSON is malformed: ")
    if text == "Expected str of length >= 1":
        return "must not be empty"
    if text == "Input data was truncated":
        # So msgspec says also of `"\ud83d"`, which JavaScript makes of an emoji that was cut in two.
        return "it ends too early, or an escape is one half of a surrogate pair"
    return text[:1].lower() + text[1:]


# JSON text cut into its parts without being decoded: a part that is no JSON costs nobody but itself. Only strings,
# brackets and commas are known here. The faults of a part are found when it is decoded.


class NotCut(Exception):
    """The text has no parts that can be told from one another."""


def cut_array(text: bytes) -> list[bytes]:
    """Return the elements of an array.

    Raises:
        NotCut: it is none, a bracket or a quotation mark is left open, an element is empty, or it needs too many steps.
    """
    return _cut(text.strip(WHITE_SPACE), b"[", b"]")


def cut_object(text: bytes) -> list[tuple[bytes, bytes]]:
    """Return the keys, as they are written, and the values of an object.

    Raises:
        NotCut: as of `cut_array`, or a field is not a key and a value.
    """
    fields = []
    for field in _cut(text.strip(WHITE_SPACE), b"{", b"}"):
        key = _KEY(field)
        if key is None:
            raise NotCut
        fields.append((key[1], field[key.end() :]))
    return fields


def _cut(text: bytes, opening: bytes, closing: bytes) -> list[bytes]:
    if not (text.startswith(opening) and text.endswith(closing)):
        raise NotCut
    ends = _ends(text)
    starts = [1, *(end + 1 for end in ends)]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=False)]
    if len(parts) == 1 and not parts[0].strip(WHITE_SPACE):
        return []
    if not all(part.strip(WHITE_SPACE) for part in parts):
        raise NotCut
    return parts


def _ends(text: bytes) -> list[int]:
    """Return the end of each part of a bracketed text: its commas and its last bracket."""
    ends: list[int] = []
    depth = 1
    place = 1
    for _ in range(STEPS_MAX):
        match = (_BETWEEN if depth == 1 else _INSIDE)(text, place)
        if match is None:
            break
        place = match.end()
        token = text[place - 1 : place]
        if token == b",":
            ends.append(place - 1)
        elif token in (b"[", b"{"):
            depth += 1
        elif token == b'"':
            break
        else:
            depth -= 1
            if depth == 0 and place == len(text):
                return [*ends, place - 1]
            if depth == 0:
                break
    raise NotCut
