"""`POST /events/batch`: native events in a JSON array, or in `{"events": […]}` beside the time of sending.

A batch that cannot be decoded as a whole is split into its events first, so that a bad event never costs the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from msgspec import Raw, Struct

from forebay.errors import Rejection
from forebay.intake.formats.event import (
    DECODING_ERRORS,
    check_text,
    decode_event,
    decode_instant,
    not_json,
    reason_of,
)
from forebay.intake.formats.format import Decoded, Example, Format, Result, answer_each
from forebay.intake.formats.json_split import WHITE_SPACE, NotSplit, split_array, split_object
from forebay.model import Admission, Event, Instant


class _Envelope(Struct):
    events: list[Event]
    sent_at: Instant | None = None


class _RawEnvelope(Struct):
    events: list[Raw]
    sent_at: Instant | None = None


_decode_array = msgspec.json.Decoder(list[Event]).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_raw_array = msgspec.json.Decoder(list[Raw]).decode
_decode_raw_envelope = msgspec.json.Decoder(_RawEnvelope).decode
_decode_text = msgspec.json.Decoder(str).decode


class EventBatch(Format):
    """Events in one JSON text; each is taken or refused for itself."""

    name = "batch"
    paths = ("/events/batch",)
    media_type = "application/json"
    summary = "Events in a JSON array, or in an object beside the time of sending."
    example = Example(b'[{"page":"/home","event":"open"},{"page":"/home","event":"click"}]')

    def decode(self, body: bytes) -> Decoded:
        """Return the events.

        Raises:
            Rejection: 400, it is no batch.
        """
        try:
            check_text(body)
        except Rejection as error:
            return _split(body, error)
        try:
            if _is_array(body):
                return _decoded(_decode_array(body), None)
            envelope = _decode_envelope(body)
            return _decoded(envelope.events, envelope.sent_at)
        except DECODING_ERRORS:
            return _decode_each(body)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the result of each event."""
        return answer_each("index", places, results, admission)


def _is_array(body: bytes) -> bool:
    return body.lstrip(WHITE_SPACE)[:1] == b"["


def _decoded(events: Sequence[Event], sent_at: Instant | None) -> Decoded:
    return Decoded(events, range(len(events)), sent_at)


def _decoded_one_by_one(parts: Sequence[bytes | Raw], sent_at: Instant | None, *, is_checked: bool) -> Decoded:
    return Decoded((_decode_one(part, is_checked=is_checked) for part in parts), range(len(parts)), sent_at)


def _decode_each(body: bytes) -> Decoded:
    """Decode the events one by one: they are valid JSON, and some are not valid events."""
    try:
        if _is_array(body):
            events, sent_at = _decode_raw_array(body), None
        else:
            envelope = _decode_raw_envelope(body)
            events, sent_at = envelope.events, envelope.sent_at
    except DECODING_ERRORS as error:
        return _split(body, _no_batch(error))
    return _decoded_one_by_one(events, sent_at, is_checked=True)


def _split(body: bytes, error: Rejection) -> Decoded:
    """Split a batch that is not JSON or not UTF-8, and decode its parts; raise `error` if it cannot be split either."""
    try:
        if _is_array(body):
            return _decoded_one_by_one(split_array(body), None, is_checked=False)
        fields = _envelope_fields(split_object(body))
        parts = split_array(fields["events"])
        sent_at = decode_instant(fields.get("sent_at", b"null"))
    except (NotSplit, KeyError):
        raise error from None
    except DECODING_ERRORS as reason:
        raise _no_batch(reason) from None
    return _decoded_one_by_one(parts, sent_at, is_checked=False)


def _decode_one(text: bytes | Raw, *, is_checked: bool) -> Event | Rejection:
    try:
        if not is_checked:
            check_text(bytes(text), "event")
        return decode_event(text)
    except Rejection as error:
        return error


def _envelope_fields(fields: list[tuple[bytes, bytes]]) -> dict[str, bytes]:
    named = {}
    for key, value in fields:
        try:
            named[_decode_text(key)] = value
        except DECODING_ERRORS:
            # An unreadable name is an unknown one.
            continue
    return named


def _no_batch(error: Exception) -> Rejection:
    if isinstance(error, msgspec.ValidationError):
        return Rejection(
            HTTPStatus.BAD_REQUEST, f'a batch is an array of events or {{"events": […]}}: {reason_of(error)}'
        )
    return not_json(error, "body")
