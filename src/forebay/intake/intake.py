"""From a request for an event address to its events in the pipeline, and from there to its answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from msgspec import structs

from forebay.clock import Clock
from forebay.errors import SpoolInDoubt, SpoolUnavailable
from forebay.intake import refusals
from forebay.intake.answers import Answer, Turn
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.compressed import StillPacked
from forebay.intake.formats.format import BYTE_ORDER_MARK, Result
from forebay.intake.formats.registry import Addresses
from forebay.intake.guard import Guard, Head
from forebay.intake.heads import Grant, KnownHeads
from forebay.intake.limits import RequestLimits
from forebay.model import CREATED, Admission
from forebay.pipeline.admitter import Admitter
from forebay.pipeline.group import Part
from forebay.telemetry.counters import Counters


class Connection(Protocol):
    """The connection on which a request came.

    Attributes:
        peer: the address of its other end; empty if that has none.
    """

    peer: bytes

    def answer(self, turn: Turn, answer: Answer) -> None:
        """Write an answer in its turn."""

    def abandon(self, turn: Turn) -> None:
        """Close the connection in place of an answer."""


class Request(Turn, eq=False, kw_only=True):
    """A request that passed the guard; the pipeline tells it when its events are safe.

    Attributes:
        grant: the decisions on its head.
        head: the head itself, until its body is there: by then another decision may be right.
        places: the number of each event in the body.
        results: the result of each event.
        parts: the entries of the events that were not refused, by their index.
        events: how many were not refused.
        entry_bytes: the bytes of the entries.
    """

    connection: Connection
    counters: Counters
    grant: Grant
    head: Head | None = None
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
        form = self.grant.format
        body = form.answer(self.places, self.results, admission)
        self.counters.accepted += self.events
        self.connection.answer(self, (200, form.ok_head % len(body), body))

    def refused(self, error: SpoolUnavailable) -> None:
        """Tell the client to send again; if no answer can be right, close without one."""
        self.counters.unavailable += self.events
        if self.grant.limited_as is not None:
            self.grant.limited_as.count(-self.events)
        if isinstance(error, SpoolInDoubt):
            self.connection.abandon(self)
        else:
            self.connection.answer(self, self.grant.format.refuse(refusals.unavailable(error)))


class Intake:
    """Takes requests for the event addresses."""

    def __init__(
        self,
        addresses: Addresses,
        guard: Guard,
        makers: tuple[DocumentMaker, DocumentMaker],
        admitter: Admitter,
        limits: RequestLimits,
        counters: Counters,
    ) -> None:
        self.addresses = addresses
        self.guard = guard
        self.rates = guard.rates
        self.limits = limits
        self.counters = counters
        self._makers = makers
        self._admitter = admitter
        self._clock = Clock()
        self.heads = KnownHeads(limits.header_bytes_max)

    def recall(self, connection: Connection, piece: bytes) -> tuple[Request, bytes, bytes] | None:
        """Return the first request in a piece of input, its body, and the rest of the piece; None without a known head.

        Ask only if no request is half there. A head that is known, and would be refused now, is not taken.
        """
        found = self.heads.find(connection.peer, piece)
        if found is None:
            return None
        grant, body, rest = found
        if not self.guard.still_holds(grant, len(body)):
            return None
        lines = grant.origin_lines
        return Request(connection=connection, counters=self.counters, grant=grant, origin_lines=lines), body, rest

    def begin(self, connection: Connection, head: Head) -> Request:
        """Return a request, from its head.

        Raises:
            Rejection: it may not go on.
        """
        return Request(connection=connection, counters=self.counters, grant=self.guard.check(head), head=head)

    def decide(self, request: Request, head: Head, body: bytes, *, is_last_try: bool) -> None:
        """Decide on a request whose body is there: also again, if its token or its sender may be refused since.

        Raises:
            Rejection: it may not go on.
            KeyNotKnown: wait for the key of its token; not at the last try.
        """
        if not self.guard.still_holds(request.grant, len(body)):
            request.grant = self.guard.decide(head, body.removeprefix(BYTE_ORDER_MARK), is_last_try=is_last_try)
        request.head = None

    def take(self, request: Request, body: bytes) -> None:
        """Take the events of a request; it is answered now, or once they are safe.

        Raises:
            Rejection: all of them are refused.
            StillPacked: wait until the body is unpacked.
        """
        grant = request.grant
        limited_as = grant.limited_as
        if limited_as is not None:
            self.rates.charge(time.monotonic(), limited_as)
        events = entry_bytes = 0
        try:
            decoded = grant.format.decode(body.removeprefix(BYTE_ORDER_MARK))
            if len(decoded.places) > grant.events_max:
                self.guard.check_events(len(decoded.places), grant.sender)
            maker = self._makers[decoded.is_foreign]
            parts, results = maker.make(decoded.events, grant.sender, self._clock.now(), decoded.sent_at)
            for part in parts:
                events += len(part.entries)
                entry_bytes += part.entry_bytes
        except StillPacked as error:
            request.grant = structs.replace(grant, format=error.unpacked)
            raise
        finally:
            # One is counted already, whose room was needed; refused events count nothing.
            if limited_as is not None and events != 1:
                limited_as.count(events - 1)
        request.places, request.results, request.parts = decoded.places, results, parts
        request.events, request.entry_bytes = events, entry_bytes
        if events and events == len(results):
            self._admitter.admit(request, grant.ack)
        else:
            self._take_some(request)

    def _take_some(self, request: Request) -> None:
        """Take the events of a request of which not each has an entry: it was refused, or is there twice."""
        # Of an event that is there twice a sink may get one. Its sender is told of two, so two count.
        taken = [*map(type, request.results)].count(bytes)
        if request.grant.limited_as is not None:
            request.grant.limited_as.count(taken - request.events)
        request.events = taken
        if request.parts:
            self._admitter.admit(request, request.grant.ack)
        else:
            request.admitted(CREATED)
        self.counters.rejected += len(request.results) - taken
