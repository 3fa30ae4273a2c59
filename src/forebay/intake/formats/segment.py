"""Segment's HTTP API: `POST /v1/batch`, and an address for each kind of call.

Sources: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/ and
https://segment.com/docs/connections/spec/common/. Segment's own clients use short addresses, too, such as `/v1/t`.

A field that has a place of its own in a document goes there. All others are kept under `extra` as they came, and so is
one whose value does not fit its place: an odd value is no reason to refuse an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.client_clock import as_datetime
from forebay.intake.formats.beacon import HoldsToken
from forebay.intake.formats.event import (
    DECODING_ERRORS,
    TOO_DEEP,
    check_text,
    decode_instant,
    invalid_event,
    not_json,
    reason_of,
)
from forebay.intake.formats.format import Decoded, Example, ForeignEvent, Result, encode_refusal
from forebay.intake.formats.json_split import NotSplit, is_too_deep, split_array, split_object
from forebay.model import LOG_ID_BYTES_MAX, NO_PARAM, Admission, ExtendedEvent, Instant

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

WRITE_KEY = "writeKey"

BATCH_BYTES_MAX = 512 * 1024
"""Segment's clients send batches of 500 KB, some of them with the token only inside."""

SHARED_BYTES_MAX = 8 * 1024 * 1024
"""Most bytes that the fields of a batch itself make, once each of its events has them."""

SUCCESS = b'{"success":true}'

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_name = msgspec.json.Decoder(str | int | float).decode
_encode = msgspec.json.encode


class _Segment(HoldsToken):
    """What all addresses have in common."""

    name = "segment"
    media_type = "application/json"
    token_field = WRITE_KEY
    takes_basic = True
    unproven_bytes_max = BATCH_BYTES_MAX


class SegmentCall(_Segment):
    """One event, of the kind that the address names."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.paths = (f"/v1/{kind}", f"/v1/{kind[0]}")
        self.summary = f"A {kind} call of Segment's."
        self.example = Example(
            _encode({"type": kind, "userId": "u1", "event": "Song Played", "messageId": f"a {kind}"})
        )

    def decode(self, body: bytes) -> Decoded:
        """Return the event.

        Raises:
            Rejection: 400, it is not valid.
        """
        check_text(body)
        return Decoded((_decode_call(body, {}, self._kind),), range(1), is_foreign=True)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return that it was taken.

        Raises:
            Rejection: the event was refused.
        """
        del places, admission
        (result,) = results
        if isinstance(result, Rejection):
            raise result
        return SUCCESS


class SegmentBatch(_Segment):
    """Events of all kinds; each is taken or refused for itself."""

    paths = ("/v1/batch", "/v1/import", "/v1/b")
    summary = "Calls of Segment's clients."
    example = Example(
        b'{"batch":[{"type":"identify","userId":"u1","messageId":"m1","traits":{"plan":"free"}},'
        b'{"type":"track","userId":"u1","messageId":"m2","event":"Song Played"}],"context":{"locale":"de-CH"}}'
    )

    def decode(self, body: bytes) -> Decoded:
        """Return the events. The other fields of a batch count for each of them.

        Raises:
            Rejection: 400, it is no batch; 413, its own fields are too large for so many events.
        """
        try:
            check_text(body)
            shared = _decode_fields(body)
            calls: Sequence[bytes | Raw] = _decode_array(shared.pop("batch"))
        except (Rejection, KeyError, *DECODING_ERRORS) as error:
            shared, calls = _split(body, _no_batch(error))
        shared.pop(WRITE_KEY, None)
        _check_depth(shared)
        shared_bytes = sum(len(name.encode()) + len(bytes(raw)) for name, raw in shared.items())
        if len(calls) * shared_bytes > SHARED_BYTES_MAX:
            detail = "the fields beside the batch are too large for so many events"
            raise Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        sent_at = _read_time(shared, "sentAt")
        return Decoded(_decode_each(calls, shared), range(len(calls)), sent_at, is_foreign=True)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return that the batch was taken, and each event that was not."""
        del admission
        refusals = [
            encode_refusal("index", place, result)
            for place, result in zip(places, results, strict=True)
            if isinstance(result, Rejection)
        ]
        return b'{"success":true,"rejected":[%b]}' % b",".join(refusals) if refusals else SUCCESS


def _split(body: bytes, error: Rejection) -> tuple[dict[str, Raw], Sequence[bytes]]:
    """Split a batch of which a part is not JSON or not UTF-8; raise `error` if it cannot be split either."""
    try:
        fields = {_decode_text(name): value for name, value in split_object(body)}
        calls = split_array(fields.pop("batch"))
        for value in fields.values():
            check_text(value)
        return {name: _decode_raw(value) for name, value in fields.items()}, calls
    except (NotSplit, KeyError, Rejection, *DECODING_ERRORS):
        raise error from None


def _no_batch(error: Exception) -> Rejection:
    if isinstance(error, Rejection):
        return error
    if isinstance(error, KeyError | msgspec.ValidationError):
        reason = "batch is missing" if isinstance(error, KeyError) else reason_of(error)
        return Rejection(HTTPStatus.BAD_REQUEST, f'a batch is {{"batch": […]}}: {reason}')
    return not_json(error, "body")


def _decode_each(calls: Iterable[bytes | Raw], shared: Mapping[str, Raw]) -> Iterator[ForeignEvent | Rejection]:
    for call in calls:
        try:
            if isinstance(call, bytes):
                check_text(call, "event")
            yield _decode_call(call, shared)
        except Rejection as error:
            yield error


def _decode_call(text: bytes | Raw, shared: Mapping[str, Raw], kind: str = "") -> ForeignEvent:
    """Return the event of a call; `kind` is its kind if it names none.

    Raises:
        Rejection: 400, it is not valid.
    """
    fields = _read_call(text)
    for name, value in shared.items():
        if name not in fields:
            fields[name] = value
        elif name in MERGED:
            fields[name] = _merge(value, fields[name])
    fields.setdefault("type", Raw(_encode(kind)))
    kind = _read_text(fields, "type")
    context = _read_object(fields, "context")
    is_named = kind in NAMED
    values: dict[str, Any] = {
        "page": _find_page(fields, context, is_named=is_named),
        "event": _take_text(fields, "event") if kind == "track" else kind,
        "log_id": _take_text(fields, "messageId"),
        "label": _take_text(fields, "name") if is_named else None,
        "section": _take_text(fields, "category") if is_named else None,
        "param": fields.pop(CALLS.get(kind, ""), NO_PARAM),
        "timestamp": _take_time(fields),
        "sent_at": _read_time(fields, "sentAt"),
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
    fields.pop(WRITE_KEY, None)
    _check_depth(fields)
    return fields


def _check_depth(fields: Mapping[str, Raw]) -> None:
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


def _read_time(fields: Mapping[str, Raw], name: str) -> Instant | None:
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
        time = _read_time(fields, name)
        if time is not None:
            del fields[name]
            return time
    return None
