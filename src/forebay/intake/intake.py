"""From a request for an event address to its events in the pipeline, and from there to its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

from forebay.clock import Clock
from forebay.errors import FieldError, Rejection, SpoolInDoubt, SpoolUnavailable
from forebay.intake import answers, refusals
from forebay.intake.answers import Answer, Turn
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.format import Format, Result
from forebay.intake.formats.registry import Formats
from forebay.intake.guard import Guard
from forebay.intake.heads import Grant, KnownHeads
from forebay.intake.limits import RequestLimits
from forebay.model import CREATED, Ack, Admission
from forebay.pipeline.group import Part
from forebay.pipeline.pipeline import Admitter
from forebay.telemetry.counters import Counters

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Connection(Protocol):
    """The connection on which a request came."""

    def answer(self, turn: Turn, answer: Answer) -> None:
        """Write an answer in its turn."""

    def abandon(self, turn: Turn) -> None:
        """Close the connection in place of an answer."""


class Request(Turn, eq=False, kw_only=True):
    """A request that passed the guard; the pipeline tells it when its events are safe.

    Attributes:
        grant: the decisions on its head.
        places: the number of each event in the body.
        results: the result of each event.
        parts: the events that were not refused, by their index.
        events: how many these are.
        entry_bytes: the bytes of their entries.
    """

    connection: Connection
    counters: Counters
    grant: Grant
    places: Sequence[int] = ()
    results: Sequence[Result] = ()
    parts: Sequence[Part] = ()
    events: int = 0
    entry_bytes: int = 0

    def admitted(self, admission: Admission) -> None:
        """Tell the client that its events are safe.

        Raises:
            Rejection: it had one event, which was refused; only if `parts` is empty.
        """
        body = self.grant.format.answer(self.places, self.results, admission)
        self.counters.accepted += self.events
        self.connection.answer(self, answers.ok(body))

    def refused(self, error: SpoolUnavailable) -> None:
        """Tell the client to send again; if no answer can be right, close without one."""
        self.counters.unavailable += self.events
        if isinstance(error, SpoolInDoubt):
            self.connection.abandon(self)
        else:
            self.connection.answer(self, refusals.unavailable(error))


class Intake:
    """Takes requests for the event addresses."""

    def __init__(
        self,
        guard: Guard,
        maker: DocumentMaker,
        admitter: Admitter,
        ack: Ack,
        limits: RequestLimits,
        counters: Counters,
    ) -> None:
        self.guard = guard
        self.limits = limits
        self.counters = counters
        self._maker = maker
        self._admitter = admitter
        self._ack = ack
        self._clock = Clock()
        self.heads = KnownHeads(limits.header_bytes_max)

    def recall(self, connection: Connection, piece: bytes) -> tuple[Request, bytes] | None:
        """Return the request in a piece of input and its body, if it is a whole one with a head that is known.

        Ask only if no request is half there. A head that is known, and would be refused now, is not taken.
        """
        found = self.heads.find(piece)
        if found is None:
            return None
        grant, body = found
        if not self.guard.still_holds(grant, len(body)):
            return None
        return Request(connection=connection, counters=self.counters, grant=grant), body

    def begin(self, connection: Connection, formats: Formats, query: bytes, headers: Mapping[bytes, bytes]) -> Request:
        """Return a request, from its head.

        Raises:
            Rejection: it may not go on.
        """
        get = headers.get
        claims = self.guard.check(headers)
        form = formats.get(get(b"content-type", b"")) or _choose_format(formats, get(b"content-type"))
        sender = (claims.user_id, get(b"device-uuid"), get(b"app-version"), get(b"os-version"), get(b"user-agent"))
        ack = (_read_ack(query) if query else None) or self._ack
        return Request(connection=connection, counters=self.counters, grant=Grant(claims, form, sender, ack))

    def take(self, request: Request, body: bytes) -> None:
        """Take the events of a request; it is answered now, or once they are safe.

        Raises:
            Rejection: all of them are refused.
        """
        grant = request.grant
        # Windows writes it, and a reader may ignore it (RFC 8259, section 8.1).
        decoded = grant.format.decode(body.removeprefix(BYTE_ORDER_MARK))
        if len(decoded.places) > self.limits.batch_events_max:
            detail = f"a batch has at most {self.limits.batch_events_max} events, not {len(decoded.places)}"
            raise Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        parts, results = self._maker.make(decoded.events, grant.sender, self._clock.now(), decoded.sent_at)
        events = entry_bytes = 0
        for part in parts:
            events += len(part.entries)
            entry_bytes += part.entry_bytes
        request.places, request.results, request.parts = decoded.places, results, parts
        request.events, request.entry_bytes = events, entry_bytes
        if events:
            self._admitter.admit(request, grant.ack)
        else:
            request.admitted(CREATED)
        self.counters.rejected += len(results) - events


def _choose_format(formats: Formats, content_type: bytes | None) -> Format:
    if content_type is None:
        return next(iter(formats.values()))
    form = formats.get(content_type.partition(b";")[0].strip().lower())
    if form is None:
        types = ", ".join(media_type.decode() for media_type in formats)
        detail = f"the content type must be {types.replace(', ', ' or ')}"
        raise Rejection(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers=(("Accept", types),))
    return form


def _read_ack(query: bytes) -> Ack | None:
    named = parse_qs(query.decode("latin-1")).get("ack")
    if not named:
        return None
    try:
        return Ack(named[-1])
    except ValueError:
        allowed = " or ".join(Ack)
        error = FieldError("ack", f"must be {allowed}")
        raise Rejection(HTTPStatus.BAD_REQUEST, "the query is not valid", (error,)) from None
