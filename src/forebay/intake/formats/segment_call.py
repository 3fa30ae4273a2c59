"""A call of Segment's: its JSON becomes an event.

Source: https://segment.com/docs/connections/spec/common/. A field that has a place of its own in a document goes there.
All others are kept under `extra` as they came, and so is one whose value does not fit its place: an odd value is no
reason to refuse an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.client_clock import as_datetime
from forebay.intake.formats.event import (
    DECODING_ERRORS,
    TOO_DEEP,
    decode_instant,
    invalid_event,
    not_json,
    reason_of,
)
from forebay.intake.formats.format import TOKEN, ForeignEvent
from forebay.intake.formats.json_split import is_too_deep
from forebay.model import LOG_ID_BYTES_MAX, NO_PARAM, ExtendedEvent, Instant

CALLS = {
    "track": "properties",
    "page": "properties",
    "screen": "properties",
    "identify": "traits",
    "group": "traits",
    "alias": "traits",
}
"""The kinds of calls, and the field of each that becomes `param`."""

NAMED = frozenset({"page", "screen"})
"""The kinds that have a name, a category, and properties of the page itself."""

NO_PAGE = "unknown"
"""The page of an event that names none."""

MERGED = frozenset({"context", "integrations"})
"""The objects of a batch whose fields count for each of its events."""

NULL = Raw(b"null")

WRITE_KEY = "writeKey"
TOKENS = (WRITE_KEY, TOKEN)
"""Fields in which a token may be: kept in no event."""

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_name = msgspec.json.Decoder(str | int | float).decode
_encode = msgspec.json.encode


def decode_call(text: bytes | Raw, shared: Mapping[str, Raw], kind: str = "") -> ForeignEvent:
    """Return the event of a call; `kind` is its kind if it names none.

    Raises:
        Rejection: 400, it is not valid.
    """
    fields = _read_call(text)
    # Before the batch's own, which would be the same for all of its events.
    log_id = _take_text(fields, "messageId")
    for name, value in shared.items():
        if name not in fields:
            fields[name] = value
        elif name in MERGED:
            # Clients that have no context of an event write null.
            fields[name] = value if fields[name] == NULL else _merge(value, fields[name])
    fields.setdefault("type", Raw(_encode(kind)))
    kind = _read_text(fields, "type")
    context = _read_object(fields, "context")
    is_named = kind in NAMED
    values: dict[str, Any] = {
        "page": _find_page(fields, context, is_named=is_named),
        "event": _take_text(fields, "event") if kind == "track" else kind,
        "log_id": log_id,
        "label": _take_text(fields, "name") if is_named else None,
        "section": _take_text(fields, "category") if is_named else None,
        "param": fields.pop(CALLS.get(kind, ""), NO_PARAM),
        "timestamp": _take_time(fields),
        "sent_at": read_time(fields, "sentAt"),
    }
    user_id = _take_text(fields, "userId") or ""
    _check(kind, values)
    event = ExtendedEvent(**values, extra=fields)
    return ForeignEvent(event, user_id, _read_sender(context))


def _read_call(text: bytes | Raw) -> dict[str, Raw]:
    try:
        fields = _decode_fields(text)
    except msgspec.ValidationError as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"an event is a JSON object: {reason_of(error)}") from None
    except DECODING_ERRORS as error:
        raise not_json(error, "event") from None
    for name in TOKENS:
        fields.pop(name, None)
    check_depth(fields)
    return fields


def check_depth(fields: Mapping[str, Raw]) -> None:
    """Check that no field nests too deeply.

    Raises:
        Rejection: 400 with each that does.
    """
    errors = [FieldError(name, TOO_DEEP) for name, raw in fields.items() if is_too_deep(bytes(raw))]
    if errors:
        raise invalid_event(*errors)


def _check(kind: str, values: Mapping[str, Any]) -> None:
    errors = []
    if kind not in CALLS:
        errors.append(FieldError("type", f"must be one of {', '.join(CALLS)}"))
    elif not values["event"]:
        errors.append(FieldError("event", "is required, and must be text"))
    log_id = values["log_id"]
    if log_id is not None and len(log_id.encode()) > LOG_ID_BYTES_MAX:
        errors.append(FieldError("messageId", f"must not be longer than {LOG_ID_BYTES_MAX} bytes"))
    if errors:
        raise invalid_event(*errors)


def _merge(outer: Raw, inner: Raw) -> Raw:
    """Return an object with the fields of two; what is in both, or is no object, counts as it is in the inner one."""
    try:
        below, above = _decode_fields(outer), _decode_fields(inner)
    except DECODING_ERRORS:
        return inner
    merged = {name: _merge(below[name], raw) if name in below else raw for name, raw in above.items()}
    return Raw(_encode(below | merged))


def _find_page(fields: Mapping[str, Raw], context: Mapping[str, Raw], *, is_named: bool) -> str:
    """Return the page of an event: the first of these that it names."""
    page = _read_object(context, "page")
    found = _read_text(page, "path") or _read_text(page, "url")
    if not found and is_named:
        properties = _read_object(fields, "properties")
        found = _read_text(properties, "path") or _read_text(properties, "url") or _read_text(fields, "name")
    return found or NO_PAGE


def _read_sender(context: Mapping[str, Raw]) -> Mapping[str, str]:
    named = {
        "device_uuid": _read_text(_read_object(context, "device"), "id"),
        "app_version": _read_text(_read_object(context, "app"), "version"),
        "os_version": _read_text(_read_object(context, "os"), "version"),
        "user_agent": _read_text(context, "userAgent"),
    }
    return {name: text for name, text in named.items() if text}


def _read_object(fields: Mapping[str, Raw], name: str) -> Mapping[str, Raw]:
    """Return the fields of an object; none if it is missing or something else."""
    try:
        return _decode_fields(fields[name])
    except (KeyError, *DECODING_ERRORS):
        return {}


def _read_text(fields: Mapping[str, Raw], name: str) -> str:
    """Return a text, or a number as it was written; nothing if the field is missing or something else."""
    try:
        value = _decode_name(fields[name])
    except (KeyError, *DECODING_ERRORS):
        return ""
    return value if isinstance(value, str) else bytes(fields[name]).decode()


def _take_text(fields: dict[str, Raw], name: str) -> str | None:
    text = _read_text(fields, name)
    if not text:
        return None
    del fields[name]
    return text


def read_time(fields: Mapping[str, Raw], name: str) -> Instant | None:
    """Return a time; None if the field is missing or something else."""
    try:
        time = _decode_time(fields[name])
        if time is not None:
            as_datetime(time, name)
    except (KeyError, ValueError, Rejection, *DECODING_ERRORS):
        return None
    return time


def _decode_time(value: Raw) -> Instant | None:
    try:
        return decode_instant(value)
    except msgspec.ValidationError:
        # ISO 8601 has more forms than RFC 3339.
        return datetime.fromisoformat(_decode_text(value))


def _take_time(fields: dict[str, Raw]) -> Instant | None:
    for name in ("timestamp", "originalTimestamp"):
        time = read_time(fields, name)
        if time is not None:
            del fields[name]
            return time
    return None
