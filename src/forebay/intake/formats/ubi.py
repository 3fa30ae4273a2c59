"""`POST /ubi_events` and `/ubi_queries`: User Behavior Insights, as its JavaScript collector sends them.

An element of the array is a document as it is, of the index `ubi_events` or `ubi_queries`: no field is renamed, moved
or checked, and one without a `timestamp` gets the time of receipt. The specification has no id of an event. So its
`_id` is made of the whole request and its place in it: a request that is sent again makes no second document, and equal
events of one request stay two.

Sources: ubi-javascript-collector/ubi.js of opensearch-project/user-behavior-insights; version 1.3.0 of the
specification, https://github.com/o19s/ubi.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.event import DECODING_ERRORS, TOO_DEEP, check_text, invalid_event, not_json, reason_of
from forebay.intake.formats.format import TOKEN, Decoded, Example, Format, OwnDocument, Result, answer_each
from forebay.intake.formats.json_split import WHITE_SPACE, NotSplit, is_too_deep, split_array
from forebay.model import Admission, on_one_line
from forebay.own_indices import RECEIPT, UBI_EVENTS, UBI_QUERIES, UNINDEXED

TIMESTAMP = "timestamp"

DIGEST_DIGITS = 32
"""How much of the SHA-256 of a request stands in the ids: as much as a UUID has."""

RESERVED = (RECEIPT, UNINDEXED)

_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class UbiEvents(Format):
    """User events in a JSON array, or one alone; each is taken or refused for itself."""

    name = "ubi"
    paths = ("/ubi_events",)
    media_type = "application/json"
    summary = "Events of User Behavior Insights, in a JSON array."
    example = Example(
        b'[{"application":"shop","action_name":"add_to_cart","client_id":"c1","query_id":"q1",'
        b'"timestamp":"2026-11-24T12:00:00.000Z","message_type":"CONVERSION",'
        b'"event_attributes":{"object":{"object_id":"0884420136132","object_id_field":"ean"},"position":{"ordinal":3}}}]'
    )
    index = UBI_EVENTS

    def decode(self, body: bytes) -> Decoded:
        """Return the documents.

        Raises:
            Rejection: 400, it is neither an array nor an object.
        """
        parts, is_checked = _split(body)
        digest = hashlib.sha256(body).hexdigest()[:DIGEST_DIGITS]
        documents = (
            _read_document(part, self.index, f"{digest}-{place}", is_checked=is_checked)
            for place, part in enumerate(parts)
        )
        return Decoded(documents, range(len(parts)), is_foreign=True)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the result of each event.

        Raises:
            Rejection: the refusal of the only one; the collector, which always sends one, looks at the status alone.
        """
        if len(results) == 1 and isinstance(results[0], Rejection):
            raise results[0]
        return answer_each("index", places, results, admission)


class UbiQueries(UbiEvents):
    """User queries, in the same form."""

    paths = ("/ubi_queries",)
    summary = "Queries of User Behavior Insights, in a JSON array."
    example = Example(
        b'[{"application":"shop","query_id":"q1","client_id":"c1","user_query":"toner","object_id_field":"ean",'
        b'"timestamp":"2026-11-24T11:59:30.000Z","query_attributes":{"experiment":"exp_1"}}]'
    )
    index = UBI_QUERIES


def _split(body: bytes) -> tuple[Sequence[bytes | Raw], bool]:
    """Return the elements of an array, or an object alone; and whether all of it is UTF-8 and JSON.

    Raises:
        Rejection: 400, it is neither, or cannot be split.
    """
    if body.lstrip(WHITE_SPACE)[:1] == b"{":
        return [body], False
    try:
        check_text(body)
        return _decode_array(body), True
    except Rejection as error:
        return _split_broken(body, error), False
    except msgspec.ValidationError as error:
        detail = f"the body is an array of objects, or one object: {reason_of(error)}"
        raise Rejection(HTTPStatus.BAD_REQUEST, detail) from None
    except DECODING_ERRORS as error:
        return _split_broken(body, not_json(error, "body")), False


def _split_broken(body: bytes, error: Rejection) -> list[bytes]:
    """Split an array that has a broken element; raise `error` if it cannot be split."""
    try:
        return split_array(body)
    except NotSplit:
        raise error from None


def _read_document(text: bytes | Raw, index: str, document_id: str, *, is_checked: bool) -> OwnDocument | Rejection:
    """Return the document of an element, or the refusal of it."""
    try:
        if not is_checked:
            check_text(bytes(text), "event")
        fields = _decode_fields(text)
    except Rejection as error:
        return error
    except msgspec.ValidationError as error:
        return Rejection(HTTPStatus.BAD_REQUEST, f"an event is a JSON object: {reason_of(error)}")
    except DECODING_ERRORS as error:
        return not_json(error, "event")
    fields.pop(TOKEN, None)
    errors = [FieldError(name, "is a name that Forebay needs itself") for name in RESERVED if name in fields]
    errors += [FieldError(name, TOO_DEEP) for name, value in fields.items() if is_too_deep(bytes(value))]
    if errors:
        return invalid_event(*errors)
    if fields.get(TIMESTAMP) == Raw(b"null"):
        del fields[TIMESTAMP]
    time_field = "" if TIMESTAMP in fields else TIMESTAMP
    return OwnDocument(index, document_id, on_one_line(_encode(fields)), time_field)
