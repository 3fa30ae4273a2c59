"""One connection within its limits: its refusals, its time, its memory and its end.

Everything that a client can do without end has a limit: the head (431), the body (413), the time for a request to
arrive (408), idle connections, answers that nobody reads, and the memory and number of all connections (503). A refusal
waits for its turn like any answer, so that an event before it still gets its own. Then the connection lingers, so that
the client can read the reason.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from forebay.errors import Rejection
from forebay.intake import responses
from forebay.intake.asgi import AsgiRequest
from forebay.intake.limits import ConnectionLimits, ConnectionTimeouts, overloaded
from forebay.intake.reader import RequestReader
from forebay.intake.request import EventRequest
from forebay.intake.responses import CLOSE_LINE, Response
from forebay.telemetry.counters import Counters

LINGER_S = 2.0
"""How long input is read and dropped after a refusal: closing at once could take the answer away from the client."""


class State(enum.Enum):
    """The state of a connection."""

    IDLE = enum.auto()  # no request has begun to arrive, and all are answered
    HEAD = enum.auto()  # the head of a request is arriving
    BODY = enum.auto()  # its body is arriving
    WAITING = enum.auto()  # the newest request has arrived, and waits for its answer
    LINGERING = enum.auto()  # the input was refused; the rest of it is dropped until the connection closes


class BoundedConnection(asyncio.Protocol):
    """One connection: its state, its unanswered requests, and its end.

    `IntakeProtocol`, its subclass, takes the requests and answers them.

    Attributes:
        state: the part of a request that is arriving, if any.
        deadline: the end of the time for this state, by the loop's clock; None while the client waits for us.
        requests: the unanswered ones, oldest first. Only the first may be answered.
        arriving: the request whose body is arriving.
        unparsed: input that waits until requests are taken again.
        used_bytes: memory that waits for the client, beside its requests; `ConnectionLimits` sets it.
        transport: writes to the client.
        flow: pauses reading, and tells whether writing is paused.
    """

    used_bytes = 0
    transport: asyncio.Transport
    flow: FlowControl

    def __init__(
        self,
        reader: RequestReader,
        counters: Counters,
        timeouts: ConnectionTimeouts,
        limits: ConnectionLimits,
        server_state: ServerState,
    ) -> None:
        self.reader = reader
        self.counters = counters
        self.timeouts = timeouts
        self.limits = limits
        self.server_state = server_state
        self.loop = asyncio.get_running_loop()
        self.state = State.IDLE
        self.deadline: float | None = None
        self.requests: deque[EventRequest | AsgiRequest] = deque()
        self.arriving: EventRequest | AsgiRequest | None = None
        self.unparsed = b""
        self._refusal: Response | None = None  # of input that is no request; it is sent after all other answers
        self._abort_at: float | None = None  # the end of the time for closing, after which it is aborted
        self._connections: set[Any] = server_state.connections  # uvicorn's type names its own protocols only

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin as an idle connection, if there is room for one more."""
        self.transport = transport
        self.flow = FlowControl(transport)
        self._connections.add(self)
        self.deadline = self.loop.time() + self.timeouts.keep_alive_s
        try:
            self.limits.make_room(len(self._connections))
        except Rejection as error:
            self.refuse_connection(error)
            transport.close()
        else:
            self.limits.idle[self] = None

    @property
    def drops_input(self) -> bool:
        """Whether further input is dropped."""
        return self.state is State.LINGERING or self.transport.is_closing()

    @property
    def is_arriving(self) -> bool:
        """Whether a request has begun to arrive and is not there yet."""
        return self.state is State.HEAD or self.state is State.BODY

    # Refusals

    def refuse_request(self, request: EventRequest, error: Rejection) -> None:
        """Answer before the body has arrived, and drop the rest of it as it comes.

        Closing at once would reset the connection under a client that is still sending, and it would never see why.
        """
        request.keep_alive = False
        request.body = b""
        self.limits.set_used_bytes(request, 0)
        request.early_response = responses.rejection(error)
        if self.requests[0] is request:
            request.reply(request.early_response)

    def refuse_connection(self, error: Rejection) -> None:
        """Answer input that cannot be taken as a request, after all requests before it, and close."""
        if self.drops_input:
            return
        self.limits.idle.pop(self, None)
        self.state = State.LINGERING
        self.deadline = self.loop.time() + self.timeouts.request_timeout_s
        self.reader.stop()
        request, self.arriving = self.arriving, None
        if request is None:
            self._refusal = responses.rejection(error)
            self.send_refusal()
            return
        request.keep_alive = False
        if request.response_complete:
            self._linger()
        elif isinstance(request, EventRequest) and request.early_response is None:
            self.refuse_request(request, error)

    def send_refusal(self) -> None:
        """Send the refusal of the connection, if there is one and every request before it is answered."""
        if self._refusal is None or self.requests:
            return
        self.counters.requests[self._refusal[0]] += 1
        self.transport.write(responses.as_bytes(self._refusal, self.server_state.default_headers, CLOSE_LINE))
        self._refusal = None
        self._linger()

    def close_after(self, request: EventRequest) -> None:
        """Close after the answer to a request, once its body is there; after its refusal, linger."""
        if self.state is State.LINGERING and self._refusal is None and request is self.requests[-1]:
            self._linger()
        elif request is not self.arriving:
            self.transport.close()

    def _linger(self) -> None:
        """Send nothing more, and close once the client does, or after a while."""
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.deadline = self.loop.time() + LINGER_S

    # Memory

    def pause_writing(self) -> None:
        """Take no more requests while the client does not read its answers, and count their memory."""
        self.flow.pause_writing()
        self.flow.pause_reading()
        self.count_memory()

    def count_memory(self) -> None:
        """Tell the limits how much memory waits for the client here."""
        used_bytes = len(self.unparsed) + self.reader.head_memory_bytes
        if self.flow.write_paused:
            used_bytes += self.transport.get_write_buffer_size()
        self.limits.set_used_bytes(self, used_bytes)
        if used_bytes or (self.arriving is not None and self.arriving.used_bytes):
            self.limits.slow.setdefault(self)
            self.limits.drop_slow_requests()
        else:
            self.limits.slow.pop(self, None)

    def find_memory(self, request: EventRequest) -> None:
        """Drop requests until the limit is met: those of the slowest clients, or this one."""
        self.limits.drop_slow_requests()
        if self.limits.exceeded and request.early_response is None:
            self.refuse_request(request, self.limits.reject_request())

    def drop_slow_request(self) -> None:
        """Free the memory that the slow client takes, by a refusal or by closing."""
        self.limits.set_used_bytes(self, 0)
        error = overloaded("too many bytes of requests are in memory, and this one is slow to arrive")
        if self.flow.write_paused or not self.is_arriving:
            # It does not read its answers, so it would not read this one.
            self.transport.abort()
        elif self.state is State.HEAD:
            self.refuse_connection(error)
        elif isinstance(self.arriving, EventRequest) and self.arriving.early_response is None:
            self.refuse_request(self.arriving, error)

    # The end

    def close_idle(self) -> None:
        """Close the idle connection, to make room for another."""
        self.transport.abort()

    def expire(self, now: float) -> None:
        """Close the connection if its time is up; called every second with the loop's time."""
        if self.transport.is_closing():
            # It is closed once the client has read the answers, which it may never do.
            if self._abort_at is None:
                self._abort_at = now + self.timeouts.request_timeout_s
            elif now >= self._abort_at:
                self.transport.abort()
        elif self.deadline is not None and now >= self.deadline:
            if self.state is State.HEAD or (self.state is State.BODY and self.requests):
                self.refuse_connection(Rejection(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time"))
            else:
                self.transport.close()

    def eof_received(self) -> bool:
        """Return whether the client, which sends nothing more, still waits for an answer; close after the last one."""
        if self.is_arriving or not self.requests:
            return False
        self._close_after_the_last()
        return True

    def shutdown(self) -> None:
        """Close once every request is answered; uvicorn calls this at the server's end."""
        if self.requests:
            self._close_after_the_last()
        else:
            self.transport.close()

    def _close_after_the_last(self) -> None:
        # The refusal that follows closes the connection anyway.
        if self._refusal is None:
            self.requests[-1].keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Free everything but a request that the pipeline has: its memory is used until it is answered."""
        del exc
        self._connections.discard(self)
        self.unparsed = b""
        self.limits.idle.pop(self, None)
        self.limits.slow.pop(self, None)
        self.limits.set_used_bytes(self, 0)
        for number, request in enumerate(self.requests):
            if isinstance(request, AsgiRequest):
                request.disconnect()
            elif number > 0 or request is self.arriving:
                self.limits.set_used_bytes(request, 0)
        self.requests.clear()
        self.arriving = None
        self.flow.resume_writing()
        self.reader.close()
