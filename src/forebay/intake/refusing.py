"""What one connection may take up, and how a client hears that it is too much.

Everything that a client can do without end has a limit: the head (431), the body (413), the time for a request to
arrive (408), idle connections, answers that nobody reads. What all connections take together is the crowd's (503). A
refusal waits for its turn like any answer, so that an event before it still gets its own, and the connection is closed
so that the client can read why.
"""

from __future__ import annotations

import abc
import asyncio
from typing import Any, NamedTuple

from forebay.errors import Rejection
from forebay.intake import replies
from forebay.intake.crowd import Crowd, crowded
from forebay.intake.exchange import Exchange
from forebay.intake.intake import Intake
from forebay.intake.ordering import OrderedProtocol
from forebay.intake.targets import Target

LINGER_S = 2.0
"""How long what a client still sends is read after a refusal: closing at once could take the answer away from it."""

HEADER_LINES_MAX = 100
"""Most lines in a head: short ones take many times their bytes in memory. Apache's `LimitRequestFields` is the same."""

HEADER_LINE_BYTES = 130
"""What a line of a head takes in memory beside its own bytes."""


class ConnectionLimits(NamedTuple):
    """What one connection may take up."""

    header_bytes_max: int
    request_timeout_s: float
    keep_alive_s: float


class RefusingProtocol(OrderedProtocol):
    """An ordered connection with its limits.

    Attributes, which the arrival of bytes sets:
        _exchange: the request that arrives, if it is for an event address.
        _receiving: whether a request has begun to arrive and is not there yet.
        _in_head: whether its head is not there yet.
        _deadline: when the connection's time is up (the loop's clock), or None while an answer is being made.
        _stalled_bytes: what arrived since a head began, or since the last piece of a body.
        _first_piece_bytes: of the piece in which the head began, and which `_stalled_bytes` leaves out.
        _piece_bytes: of what was parsed last; some of it belongs to the head that is not there yet.
        _unparsed: what has arrived and waits until requests are taken again.
        held_bytes: what waits for the client, beside its requests; the crowd keeps it.
    """

    intake: Intake
    crowd: Crowd
    limits: ConnectionLimits

    _exchange: Exchange | None = None
    _receiving = False
    _in_head = False
    _deadline: float | None = None
    _refused = False
    _abort_at: float | None = None
    _stalled_bytes = 0
    _first_piece_bytes = 0
    _piece_bytes = 0
    _unparsed = b""
    held_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin as an idle connection, if there is room for one more."""
        super().connection_made(transport)
        self._deadline = self.loop.time() + self.limits.keep_alive_s
        if self.crowd.enter(len(self.connections)):
            self.crowd.idle[self] = None
        else:
            self._refuse_connection(crowded("there are too many connections"))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything but a request that the pipeline has: that one is in hand until it is answered."""
        super().connection_lost(exc)
        self._unparsed = b""
        self.crowd.idle.pop(self, None)
        self.crowd.slow.pop(self, None)
        self.crowd.weigh(self, 0)
        if self._receiving and self._exchange is not None:
            self.crowd.weigh(self._exchange, 0)
        while self.pipeline:
            cycle: Any = self.pipeline.pop()[0]
            if isinstance(cycle, Exchange):
                self.crowd.weigh(cycle, 0)

    def leave(self) -> None:
        """Close, being idle: the place is needed."""
        self.transport.abort()

    def give_way(self) -> None:
        """Give up what the client has kept in hand longer than others."""
        self.crowd.weigh(self, 0)
        error = crowded("too many bytes of requests are in hand, and this one is slow to arrive")
        if self.flow.write_paused or not self._receiving:
            # It does not read its answers, so that it would not read this one.
            self.transport.abort()
        elif self._in_head:
            self._refuse_connection(error)
        elif self._exchange is not None and self._exchange.early_reply is None:
            self._refuse_early(self._exchange, error)

    def abandon(self, exchange: Exchange) -> None:
        """Close the connection without an answer to this request, behind the answers to those before it."""
        self.crowd.weigh(exchange, 0)
        exchange.forget()
        exchange.response_complete = True
        self.transport.close()

    def pause_writing(self) -> None:
        """Take no more requests, and count the answers that wait for the client."""
        super().pause_writing()
        self._weigh()

    def _weigh(self) -> None:
        """Tell the crowd what is in hand here because the client is slow."""
        held = len(self._unparsed)
        if self.flow.write_paused:
            held += self.transport.get_write_buffer_size()
        if self._receiving and self._in_head:
            held += self._stalled_bytes + self._piece_bytes + HEADER_LINE_BYTES * len(self.headers)
        self.crowd.weigh(self, held)
        if held or (self._receiving and self._exchange is not None and self._exchange.held_bytes):
            self.crowd.slow.setdefault(self)
            self.crowd.has_room()
        else:
            self.crowd.slow.pop(self, None)

    @abc.abstractmethod
    def _take(self, exchange: Exchange) -> None:
        """Take a request that has arrived whole and whose turn it is."""

    @property
    def _is_deaf(self) -> bool:
        """Whether nothing that arrives matters any more."""
        return self._refused or self.transport.is_closing()

    def _begin(self, exchange: Exchange) -> None:
        """Take a request whose turn it is, unless it is still arriving."""
        if exchange.early_reply is not None:
            if not exchange.response_complete:
                exchange.reply(exchange.early_reply)
            if self._refused:
                self._linger()
            elif not self._receiving:
                self.transport.close()
        elif not (self._receiving and exchange is self._exchange):
            self._take(exchange)

    def _become_idle(self) -> None:
        if not self._receiving and not self._refused:
            # A reading of the clock instead of a timer for each answer; `expire` looks at it.
            self._deadline = self.loop.time() + self.limits.keep_alive_s
            self.crowd.idle[self] = None

    def expire(self, now: float) -> None:
        """Close the connection if its time is up; called every second with the loop's time."""
        if self.transport.is_closing():
            # It is closed once the client has read the answers, which it may never do.
            if self._abort_at is None:
                self._abort_at = now + self.limits.request_timeout_s
            elif now >= self._abort_at:
                self.transport.abort()
        elif self._deadline is not None and now >= self._deadline:
            if self._receiving and (self._in_head or self._unanswered):
                self._refuse_connection(Rejection(408, "the request did not arrive in time"))
            else:
                self.transport.close()

    def _refuse_early(self, exchange: Exchange, error: Rejection) -> None:
        """Answer before the body has arrived, and read on without keeping it.

        Closing at once would reset the connection under a client that is still sending, and it would never see why.
        """
        exchange.keep_alive = False
        exchange.body = b""
        self.crowd.weigh(exchange, 0)
        exchange.early_reply = replies.rejection(error)
        if not self.pipeline:
            self._begin(exchange)

    def _refuse_connection(self, error: Rejection) -> None:
        """Answer what cannot be taken as a request, after all requests before it, and close."""
        if self._is_deaf:
            return
        if self._in_head or not self._receiving:
            # Only what has a whole head stands in the queue.
            self._queue(Exchange(self, self.intake.counters, Target.PING, b"", {}))
        self._refused = True
        self._receiving = False
        self.headers = []
        self._deadline = self.loop.time() + self.limits.request_timeout_s
        if self.cycle.response_complete:
            self._linger()
            return
        self.cycle.keep_alive = False
        if isinstance(self.cycle, Exchange):
            self.cycle.early_reply = self.cycle.early_reply or replies.rejection(error)
            if not self.pipeline:
                self._begin(self.cycle)

    def _linger(self) -> None:
        """Send nothing more, and close when the client does or after a while."""
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._deadline = self.loop.time() + LINGER_S
