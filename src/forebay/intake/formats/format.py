"""A wire format: how a body becomes events, and how the answer to them looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

import msgspec
from msgspec import Struct

from forebay.errors import Rejection
from forebay.model import Admission, Event, Instant
from forebay.problems import field_errors

TOKEN = "access_token"  # noqa: S105 - the name of a field
"""The field in which a beacon has its token (RFC 6750, section 2.2): the one unknown field that no event keeps."""

Result: TypeAlias = bytes | Rejection
"""An event's `log_id` as JSON, or the refusal of the event."""


class Decoded(Struct, gc=False):
    """The events of a body, each as an `Event` or as its refusal.

    Attributes:
        events: read once. A format decodes events one by one only while this is read: there may be too many of them.
        places: the number of each in the body, as the answer names it.
        sent_at: the time at which the client sent all of them, by its own clock.
    """

    events: Iterable[Event | Rejection]
    places: Sequence[int]
    sent_at: Instant | None = None


class Format(Protocol):
    """A wire format. A request with a single event is a batch of one."""

    @property
    def name(self) -> str:
        """Its name, by which a token may be limited to it."""

    @property
    def paths(self) -> Sequence[str]:
        """Its addresses."""

    @property
    def media_type(self) -> str:
        """The type of its bodies."""

    def decode(self, body: bytes) -> Decoded:
        """Return the events of a body.

        Raises:
            Rejection: 400, the body is not of this format.
        """

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the JSON of the answer, once all events that were not refused are safe.

        It is called for all requests of a commit, one after the other: any other error would cost those behind it their
        answers.

        Raises:
            Rejection: the refusal of the only event is the one of the request.
        """


def answer_each(place_name: str, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
    """Return the JSON of an answer that names each event by its place."""
    status = admission.encode()
    taken = b'{"%b":%%d,"log_id":%%b,"status":"%b"}' % (place_name.encode(), status)
    placed = zip(places, results, strict=True)
    accepted = [*map(type, results)].count(bytes)
    rejected = len(results) - accepted
    if rejected:
        rows = [
            _encode_refusal(place_name, place, result) if isinstance(result, Rejection) else taken % (place, result)
            for place, result in placed
        ]
    else:
        rows = [*map(taken.__mod__, placed)]
    return b'{"accepted":%d,"rejected":%d,"results":[%b]}' % (accepted, rejected, b",".join(rows))


def _encode_refusal(place_name: str, place: int, refusal: Rejection) -> bytes:
    error: dict[str, object] = {"detail": refusal.detail}
    if refusal.errors:
        error["errors"] = field_errors(refusal.errors)
    return msgspec.json.encode({place_name: place, "status": "rejected", "error": error})
