"""A wire format: how a body becomes events, and how the answer to them looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from forebay.errors import Rejection
from forebay.intake.answers import Answer, ok_head
from forebay.intake.refusals import rejection
from forebay.model import Admission, Event, Instant
from forebay.problems import field_errors

EMPTY: Mapping[str, str] = MappingProxyType({})

TOKEN = "access_token"  # noqa: S105 - the name of a field
"""The field in which a beacon has its token (RFC 6750, section 2.2): the one unknown field that no event keeps."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Windows writes it before a text, and a reader may ignore it (RFC 8259, section 8.1)."""

UNPROVEN_BODY_BYTES_MAX = 64 * 1024
"""Most bytes of a body whose sender has shown no token yet; browsers send no more in a beacon."""

Result: TypeAlias = bytes | Rejection
"""An event's `log_id` as JSON, or the refusal of the event."""


class ForeignEvent(Struct, gc=False):
    """An event of a format that names more than a native one does.

    Attributes:
        event: everything that a native event has.
        user_id: its own user; empty if that is the token's.
        sender: what it says of its sender, by the names of `SENDER_FIELDS`; the rest is known from the head.
        document_id: the `_id` of its document, if that is not its `log_id`.
    """

    event: Event
    user_id: str = ""
    sender: Mapping[str, str] = EMPTY
    document_id: str = ""


class OwnDocument(Struct, gc=False):
    """An event of a format with an index and documents of its own.

    Attributes:
        index: the name of the index.
        document_id: the `_id` of the document.
        document: the document, a JSON object without newlines; `RECEIPT` is added to it.
        time_field: the field that gets the time of receipt, as the document has no time of its own; empty if it has.
    """

    index: str
    document_id: str
    document: bytes
    time_field: str = ""


Incoming: TypeAlias = Event | ForeignEvent | OwnDocument | Rejection
"""An event as a format finds it, or the refusal of it."""


class Decoded(Struct, gc=False):
    """The events of a body.

    Attributes:
        events: read once. A format decodes events one by one only while this is read: there may be too many of them.
        places: the number of each in the body, as the answer names it.
        sent_at: the time at which the client sent all of them, by its own clock.
        is_foreign: whether events are of another kind than `Event`.
    """

    events: Iterable[Incoming]
    places: Sequence[int]
    sent_at: Instant | None = None
    is_foreign: bool = False


class Example(NamedTuple):
    """A request that is taken, for the description of the interface; a test sends it.

    Attributes:
        body: the body.
        headers: header lines beside `Authorization` and `Content-Type`.
        path: the address, if it is not the first of the format.
    """

    body: bytes
    headers: Mapping[str, str] = EMPTY
    path: str = ""


class Format:
    """A wire format, to be derived from. A request with a single event is a batch of one.

    Attributes:
        name: its name, by which a token may be limited to it.
        paths: its addresses.
        media_type: the type of its bodies.
        summary: one line about it, for the description of the interface.
        example: a request.
        ok_head: the head of its answers 200, in which `%d` stands for the length.
        token_field: the field of a JSON body in which a beacon may have its token.
        unproven_bytes_max: most bytes of a body whose sender has shown no token before it.
        takes_basic: whether the token may be the user name of Basic authentication (RFC 7617).
        is_for_one_request: whether it is no use for another request with the same head.
    """

    name: str
    paths: Sequence[str]
    media_type: str
    summary: str
    example: Example
    ok_head: bytes = ok_head("application/json")
    token_field: str = TOKEN
    unproven_bytes_max: int = UNPROVEN_BODY_BYTES_MAX
    takes_basic: bool = False
    is_for_one_request: bool = False

    def decode(self, body: bytes) -> Decoded:
        """Return the events of a body.

        Raises:
            Rejection: 400, the body is not of this format.
            NotYet: wait until the body is unpacked.
        """
        raise NotImplementedError

    def refuse(self, error: Rejection) -> Answer:
        """Return the answer that refuses a request of this format."""
        return rejection(error)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the JSON of the answer, once all events that were not refused are safe.

        It is called for all requests of a commit, one after the other: any other error would cost those behind it their
        answers.

        Raises:
            Rejection: the refusal of the only event is the one of the request.
        """
        raise NotImplementedError


class WrappedFormat(Format):
    """A format whose bodies come in another form; everything else is that of the format inside."""

    def __init__(self, inner: Format) -> None:
        self._inner = inner
        self.name = inner.name
        self.paths = inner.paths
        self.summary = inner.summary
        self.example = inner.example
        self.ok_head = inner.ok_head
        self.token_field = inner.token_field
        self.takes_basic = inner.takes_basic
        self.is_for_one_request = inner.is_for_one_request
        self.unproven_bytes_max = inner.unproven_bytes_max

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the answer of the format inside."""
        return self._inner.answer(places, results, admission)

    def refuse(self, error: Rejection) -> Answer:
        """Return the refusal of the format inside."""
        return self._inner.refuse(error)


class FormatOfHead(Format):
    """A format whose events are in the head, too: each request has one of its own.

    Attributes:
        marker: the header line, in small letters, that tells such a request.
    """

    marker: bytes

    def of_head(self, headers: Mapping[bytes, bytes]) -> Format:
        """Return the format for the body behind a head; it is no use for any other request."""
        raise NotImplementedError


def answer_each(place_name: str, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
    """Return the JSON of an answer that names each event by its place."""
    status = admission.encode()
    taken = b'{"%b":%%d,"log_id":%%b,"status":"%b"}' % (place_name.encode(), status)
    placed = zip(places, results, strict=True)
    accepted = [*map(type, results)].count(bytes)
    rejected = len(results) - accepted
    if rejected:
        rows = [
            encode_refusal(place_name, place, result) if isinstance(result, Rejection) else taken % (place, result)
            for place, result in placed
        ]
    else:
        rows = [*map(taken.__mod__, placed)]
    return b'{"accepted":%d,"rejected":%d,"results":[%b]}' % (accepted, rejected, b",".join(rows))


def encode_refusal(place_name: str, place: int, refusal: Rejection) -> bytes:
    """Return the JSON of an event that was refused, by its place."""
    error: dict[str, object] = {"detail": refusal.detail}
    if refusal.errors:
        error["errors"] = field_errors(refusal.errors)
    return msgspec.json.encode({place_name: place, "status": "rejected", "error": error})
