"""CloudEvents over HTTP: one event as a JSON object, many in a JSON array, or one with its attributes in the head.

In the third mode, called binary, the body is the data alone. Such a request is read into the members that the JSON
format has, so that an event becomes the same document in every mode.

Specification: github.com/cloudevents/spec, cloudevents/bindings/http-protocol-binding.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.cloud_event import make_event, read_object
from forebay.intake.formats.event import DECODING_ERRORS, check_text, not_json, reason_of
from forebay.intake.formats.format import Decoded, Example, ForeignEvent, Format, FormatOfHead, Result, answer_each
from forebay.intake.formats.json_split import NotSplit, split_array
from forebay.intake.formats.single import ONLY, SingleEvent
from forebay.model import Admission

NAME = "cloudevents"
PATHS = ("/events", "/events/batch")

PREFIX = b"ce-"
NOT_IN_HEAD = frozenset({"data", "data_base64", "datacontenttype"})
"""Members that the body and `Content-Type` stand for in binary mode."""

_NO_HEADERS: Mapping[bytes, bytes] = MappingProxyType({})
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)

_encode = msgspec.json.Encoder().encode
_decode_array = msgspec.json.Decoder(list[Raw]).decode


class StructuredCloudEvent(SingleEvent):
    """One event as a JSON object."""

    name = NAME
    paths = PATHS
    media_type = "application/cloudevents+json"
    summary = "One CloudEvent as JSON (structured mode)."
    example = Example(
        b'{"specversion":"1.0","id":"A234-1234-1234","source":"/shop","type":"com.example.order.paid",'
        b'"subject":"/checkout","time":"2026-03-15T09:30:00Z","data":{"price":12}}'
    )

    def decode(self, body: bytes) -> Decoded:
        """Return the event.

        Raises:
            Rejection: 400 with every wrong field, or with the first error if it is not JSON.
        """
        check_text(body)
        return Decoded((read_object(body, "body"),), ONLY, is_foreign=True)


class BatchedCloudEvents(Format):
    """Events in a JSON array; each is taken or refused for itself."""

    name = NAME
    paths = PATHS
    media_type = "application/cloudevents-batch+json"
    summary = "CloudEvents in a JSON array (batched mode)."
    example = Example(
        b'[{"specversion":"1.0","id":"1","source":"/shop","type":"com.example.order.paid","data":{"price":12}},'
        b'{"specversion":"1.0","id":"2","source":"/shop","type":"com.example.order.sent"}]'
    )

    def decode(self, body: bytes) -> Decoded:
        """Return the events.

        Raises:
            Rejection: 400, it is no array.
        """
        events: Sequence[bytes | Raw]
        try:
            check_text(body)
            events, is_checked = _decode_array(body), True
        except (Rejection, *DECODING_ERRORS) as error:
            # One that is not even JSON costs no other.
            try:
                events, is_checked = split_array(body), False
            except NotSplit:
                raise _no_array(error) from None
        found = (_read_element(event, is_checked=is_checked) for event in events)
        return Decoded(found, range(len(events)), is_foreign=True)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the result of each event."""
        return answer_each("index", places, results, admission)


class BinaryCloudEvent(SingleEvent, FormatOfHead):
    """One event with its attributes in the head, so the format of one request; of any other it is only the rule."""

    name = NAME
    paths = PATHS
    media_type = "*/*"
    marker = b"ce-specversion"
    is_for_one_request = True
    summary = "One CloudEvent with its attributes in header lines, and its data as the body (binary mode)."
    example = Example(
        b'{"price":12}',
        {
            "Content-Type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": "A234-1234-1235",
            "ce-source": "/shop",
            "ce-type": "com.example.order.paid",
        },
    )

    def __init__(self, headers: Mapping[bytes, bytes] = _NO_HEADERS, content_type: bytes = b"") -> None:
        self._headers = headers
        self._content_type = content_type

    def of_head(self, headers: Mapping[bytes, bytes]) -> Format:
        """Return the format for the body behind a head; the media types of the other modes count more than its lines.

        A sender may repeat the attributes of such a body in the head (http-protocol-binding, section 3.2.3).
        """
        content_type = headers.get(b"content-type", b"")
        form = _IN_BODY.get(content_type.partition(b";")[0].strip().lower())
        if form is not None:
            return form
        return BinaryCloudEvent(
            {name: value for name, value in headers.items() if name.startswith(PREFIX)}, content_type
        )

    def decode(self, body: bytes) -> Decoded:
        """Return the event.

        Raises:
            Rejection: 400 with every wrong attribute.
        """
        members, errors = _read_lines(self._headers)
        try:
            if self._content_type:
                members["datacontenttype"] = Raw(_encode(self._content_type.decode()))
        except UnicodeDecodeError:
            errors.append(FieldError("datacontenttype", "is not UTF-8"))
        return Decoded((make_event(members, errors, body, ""),), ONLY, is_foreign=True)


_IN_BODY: Mapping[bytes, Format] = {
    form.media_type.encode(): form for form in (StructuredCloudEvent(), BatchedCloudEvents())
}


def _no_array(error: Exception) -> Rejection:
    if isinstance(error, Rejection):
        return error
    if isinstance(error, msgspec.ValidationError):
        return Rejection(HTTPStatus.BAD_REQUEST, f"a batch of CloudEvents is a JSON array: {reason_of(error)}")
    return not_json(error, "body")


def _read_element(text: bytes | Raw, *, is_checked: bool) -> ForeignEvent | Rejection:
    try:
        if not is_checked:
            check_text(bytes(text), "event")
        return read_object(text, "event")
    except Rejection as error:
        return error


def _read_lines(headers: Mapping[bytes, bytes]) -> tuple[dict[str, Raw], list[FieldError]]:
    """Return the attributes in header lines as members of JSON, and those that are wrong."""
    members: dict[str, Raw] = {}
    errors: list[FieldError] = []
    for line, value in headers.items():
        name = line[len(PREFIX) :].decode("latin-1")
        if name in NOT_IN_HEAD:
            errors.append(FieldError(name, "must not be a header line"))
            continue
        try:
            members[name] = Raw(_encode(_unescape(value).decode()))
        except UnicodeDecodeError:
            errors.append(FieldError(name, "is not UTF-8"))
    return members, errors


def _unescape(value: bytes) -> bytes:
    """Return the value of a header line without quotes and percent signs (http-protocol-binding, section 3.1.3.2)."""
    quoted = _QUOTED.fullmatch(value)
    return unquote_to_bytes(value if quoted is None else _ESCAPED.sub(rb"\1", quoted[1]))
