"""The HTTP connection: every byte arrives here, and every answer leaves here.

Requests for the event addresses are answered without an ASGI scope; every other request goes to the ASGI application.
Requests are answered in the order in which they came, of either kind.

What a client can do without end has a limit: the head (431), the body (413), the time for a request to arrive (408),
idle connections, answers that nobody reads, and the memory and number of all connections (503). A refusal waits for its
turn like any answer, so that an event before it still gets its own; then the connection lingers, so that the client can
read why.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from http import HTTPStatus
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from forebay.errors import Rejection
from forebay.intake import responses
from forebay.intake.asgi import AsgiRequest
from forebay.intake.intake import Intake
from forebay.intake.limits import ConnectionLimits, ConnectionTimeouts, overloaded
from forebay.intake.reader import RequestReader
from forebay.intake.request import KEEP_ALIVE_LINE, METHODS, EventRequest, Route, resolve
from forebay.intake.responses import Response

log = structlog.get_logger("forebay.intake")

PIECE_BYTES = 16 * 1024
"""How much is parsed at once. Every request in a piece may have to wait in memory; the smallest has 20 bytes."""

REQUESTS_A_TURN = 100
"""Requests of one connection that are answered before other connections get a turn: thousands may arrive at once."""

EVENT_BYTES = 500
"""Memory of an event until it is answered, beside the bytes of its entry: its result, mostly."""

LINGER_S = 2.0
"""How long input is read and dropped after a refusal: closing at once could take the answer away from the client."""


class State(enum.Enum):
    """The state of a connection."""

    IDLE = enum.auto()  # no request has begun to arrive, and all are answered
    HEAD = enum.auto()  # the head of a request is arriving
    BODY = enum.auto()  # its body is arriving
    WAITING = enum.auto()  # the newest request has arrived, and waits for its answer
    LINGERING = enum.auto()  # the newest request was refused; all further input is dropped until the connection closes


class IntakeProtocol(asyncio.Protocol):
    """One connection.

    Attributes:
        used_bytes: memory that waits for the client, beside its requests; `ConnectionLimits` sets it.
    """

    used_bytes = 0

    def __init__(
        self,
        intake: Intake,
        timeouts: ConnectionTimeouts,
        limits: ConnectionLimits,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        **_: object,  # uvicorn passes more, which is not needed here
    ) -> None:
        self._intake = intake
        self._timeouts = timeouts
        self._limits = limits
        self._app = config.loaded_app
        self._server_state = server_state
        self._connections: set[Any] = server_state.connections  # uvicorn's type names its own protocols only
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(self, intake.limits.header_bytes_max)
        self._state = State.IDLE
        self._deadline: float | None = None  # when the time of the state is up, by the loop's clock
        self._abort_at: float | None = None  # when a connection is aborted that is closing already
        # The requests that are not answered yet, oldest first. Only the first may be answered.
        self._requests: deque[EventRequest | AsgiRequest] = deque()
        self._starting = False
        self._arriving: EventRequest | AsgiRequest | None = None  # the request whose body is arriving
        self._unparsed = b""  # input that waits until requests are taken again
        self._parsing = False
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._default_lines = b""

    # The connection opens, and its input arrives

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin as an idle connection, if there is room for one more."""
        self._transport = transport
        self._flow = FlowControl(transport)
        self._connections.add(self)
        self._deadline = self._loop.time() + self._timeouts.keep_alive_s
        try:
            self._limits.make_room(len(self._connections))
        except Rejection as error:
            self.refuse_connection(error)
            transport.close()
        else:
            self._limits.idle[self] = None

    def data_received(self, data: bytes) -> None:
        """Parse the input."""
        self._unparsed = self._unparsed + data if self._unparsed else data
        self._read_on()

    def _read_on(self) -> None:
        """Parse the input, as far as requests are taken now."""
        if self._parsing:
            return
        self._parsing = True
        turn_ends_at = self._server_state.total_requests + REQUESTS_A_TURN
        while self._unparsed and not self._drops_input and not self._flow.read_paused:
            if self._server_state.total_requests >= turn_ends_at:
                self._flow.pause_reading()
                self._loop.call_soon(self._begin_turn)
                break
            piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
            try:
                self._reader.feed(piece)
            except Exception:
                log.exception("connection_failed")
                self._transport.close()
        self._parsing = False
        if self._unparsed and self._drops_input:
            self._unparsed = b""
        if self._is_arriving or self._unparsed or self in self._limits.slow:
            self._count_memory()

    def _begin_turn(self) -> None:
        if not (len(self._requests) > 1 or self._flow.write_paused or self._drops_input):
            self._resume()

    # A request arrives: the reader calls these

    def begin_request(self) -> None:
        """Begin a request."""
        self._limits.idle.pop(self, None)
        self._state = State.HEAD
        self._deadline = self._loop.time() + self._timeouts.request_timeout_s

    def take_head(self) -> None:
        """Decide who answers the request."""
        if self._transport.is_closing():
            return
        try:
            route, query = resolve(self._reader.url)
        except Rejection as error:
            self.refuse_connection(error)
            return
        self._state = State.BODY
        method = self._reader.method
        if route is None or method not in METHODS[route]:
            self._begin_asgi_request()
        else:
            self._begin_event_request(route, query, method)

    def _begin_asgi_request(self) -> None:
        request = self._arriving = AsgiRequest(
            self._reader, self._flow, self._transport, self._server_state, self._finish_request
        )
        self._queue(request)
        if self._requests[0] is request:
            self._start(request)

    def _begin_event_request(self, route: Route, query: bytes, method: bytes) -> None:
        headers = {name.lower(): value for name, value in self._reader.headers}
        request = self._arriving = EventRequest(self, self._intake.counters, route, query, headers)
        request.keep_alive = self._reader.keep_alive
        if b"connection" in headers and self._reader.http_version == "1.0":
            request.keep_alive_line = KEEP_ALIVE_LINE
        request.head_only = method == b"HEAD"
        self._queue(request)
        try:
            self._intake.check_head(request)
        except Rejection as error:
            self._intake.counters.rejected += 1
            self._refuse_request(request, error)
            return
        is_asked = headers.get(b"expect", b"").lower() == b"100-continue"
        # Behind an unanswered request, or in HTTP/1.0, it would be taken for an answer.
        if is_asked and len(self._requests) == 1 and self._reader.http_version != "1.0":
            self._transport.write(responses.CONTINUE)

    def take_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        request = self._arriving
        if request is None:
            return
        if isinstance(request, AsgiRequest):
            request.receive_body(data)
        elif request.early_response is None:
            request.receive(data)
            self._limits.set_used_bytes(request, len(request.body))
            if len(request.body) > self._intake.limits.body_bytes_max:
                self._intake.counters.rejected += 1
                self._refuse_request(request, self._intake.too_large())
            elif self._limits.exceeded:
                self._find_memory(request)

    def _find_memory(self, request: EventRequest) -> None:
        self._limits.drop_slow_requests()
        if self._limits.exceeded and request.early_response is None:
            self._refuse_request(request, self._limits.reject_request())

    def end_request(self) -> None:
        """Take the request, now that it has arrived whole."""
        request = self._arriving
        if request is None or self._transport.is_closing():
            return
        self._arriving = None
        self._state = State.WAITING
        self._deadline = None
        if isinstance(request, AsgiRequest):
            request.end_body()
        elif request.response_complete:
            # It was refused, and its client has sent the rest all the same.
            self._transport.close()
        elif self._requests[0] is request:
            self._start(request)
        if not self._requests:
            # The ASGI application may have answered before the body was there.
            self._become_idle()

    # Requests are answered in their order

    def _queue(self, request: EventRequest | AsgiRequest) -> None:
        self._requests.append(request)
        if len(self._requests) > 1:
            self._flow.pause_reading()

    def _start(self, request: EventRequest | AsgiRequest) -> None:
        """Start the first request of the queue; one for an event address only if it has arrived whole."""
        if isinstance(request, AsgiRequest):
            request.start(self._app)
        elif request.early_response is not None:
            request.reply(request.early_response)
        elif request is not self._arriving:
            self._take(request)

    def _take(self, request: EventRequest) -> None:
        try:
            self._intake.take(request)
        except Exception:
            log.exception("request_failed", path=request.route and request.route.value)
            request.keep_alive = False
            request.reply(responses.failed())
        if not request.response_complete:
            self._limits.set_used_bytes(request, request.entry_bytes + EVENT_BYTES * len(request.entries))

    def answer(self, request: EventRequest, response: Response) -> None:
        """Write the answer to the first request of the queue, and go on with the next."""
        status, head, body = response
        self._intake.counters.requests[status] += 1
        self._limits.set_used_bytes(request, 0)
        request.response_complete = True
        if self._transport.is_closing():
            return
        if request.head_only:
            body = b""
        connection_line = request.keep_alive_line if request.keep_alive else b"connection: close\r\n"
        self._transport.write(b"%b%b%b\r\n%b" % (head, self._write_default_lines(), connection_line, body))
        if not request.keep_alive:
            self._close_after(request)
        self._finish_request()

    def abandon(self, request: EventRequest) -> None:
        """Close the connection without an answer to this request, behind the answers to those before it."""
        self._limits.set_used_bytes(request, 0)
        request.response_complete = True
        self._transport.close()

    def _close_after(self, request: EventRequest) -> None:
        if self._state is State.LINGERING and request is self._requests[-1]:
            self._linger()
        elif request is not self._arriving:
            self._transport.close()

    def _finish_request(self) -> None:
        """Go on with the next request, now that the first of the queue is answered."""
        self._server_state.total_requests += 1
        self._requests.popleft()
        # A loop, and not a call within a call for each of thousands of requests that came in one piece.
        if self._starting or self._transport.is_closing():
            return
        self._starting = True
        while self._requests and not self._transport.is_closing():
            request = self._requests[0]
            self._start(request)
            if not request.response_complete:
                break
        self._starting = False
        if len(self._requests) > 1:
            return
        if not self._flow.write_paused:
            self._resume()
        if not self._requests:
            self._become_idle()

    def _become_idle(self) -> None:
        if self._state is State.WAITING:
            self._state = State.IDLE
            # A reading of the clock instead of a timer for each answer; `expire` compares it.
            self._deadline = self._loop.time() + self._timeouts.keep_alive_s
            self._limits.idle[self] = None

    def _write_default_lines(self) -> bytes:
        """Return the date line and any other line of every answer, which uvicorn renews every second."""
        default = self._server_state.default_headers
        if default is not self._default_headers:
            self._default_headers = default
            self._default_lines = b"".join(b"%b: %b\r\n" % line for line in default)
        return self._default_lines

    def pause_writing(self) -> None:
        """Take no more requests while the client does not read its answers, and count their memory."""
        self._flow.pause_writing()
        self._flow.pause_reading()
        self._count_memory()

    def resume_writing(self) -> None:
        """Take requests again."""
        self._flow.resume_writing()
        if len(self._requests) <= 1:
            self._resume()

    def _resume(self) -> None:
        self._flow.resume_reading()
        if self._unparsed or self in self._limits.slow:
            self._read_on()

    # Limits and refusals

    @property
    def _drops_input(self) -> bool:
        """Whether further input is dropped."""
        return self._state is State.LINGERING or self._transport.is_closing()

    @property
    def _is_arriving(self) -> bool:
        """Whether a request has begun to arrive and is not there yet."""
        return self._state is State.HEAD or self._state is State.BODY

    def _count_memory(self) -> None:
        """Tell the limits how much memory waits for the client here."""
        used_bytes = len(self._unparsed) + self._reader.head_memory_bytes
        if self._flow.write_paused:
            used_bytes += self._transport.get_write_buffer_size()
        self._limits.set_used_bytes(self, used_bytes)
        if used_bytes or (self._arriving is not None and self._arriving.used_bytes):
            self._limits.slow.setdefault(self)
            self._limits.drop_slow_requests()
        else:
            self._limits.slow.pop(self, None)

    def close_idle(self) -> None:
        """Close the idle connection, to make room for another."""
        self._transport.abort()

    def drop_slow_request(self) -> None:
        """Free the memory that the slow client takes, by a refusal or by closing."""
        self._limits.set_used_bytes(self, 0)
        error = overloaded("too many bytes of requests are in memory, and this one is slow to arrive")
        if self._flow.write_paused or not self._is_arriving:
            # It does not read its answers, so it would not read this one.
            self._transport.abort()
        elif self._state is State.HEAD:
            self.refuse_connection(error)
        elif isinstance(self._arriving, EventRequest) and self._arriving.early_response is None:
            self._refuse_request(self._arriving, error)

    def _refuse_request(self, request: EventRequest, error: Rejection) -> None:
        """Answer before the body has arrived, and drop the rest of it as it comes.

        Closing at once would reset the connection under a client that is still sending, and it would never see why.
        """
        request.keep_alive = False
        request.body = b""
        self._limits.set_used_bytes(request, 0)
        request.early_response = responses.rejection(error)
        if self._requests[0] is request:
            self._start(request)

    def refuse_connection(self, error: Rejection) -> None:
        """Answer input that cannot be taken as a request, after all requests before it, and close."""
        if self._drops_input:
            return
        request, self._arriving = self._arriving, None
        if request is None:
            request = EventRequest(self, self._intake.counters, None, b"", {})
            self._queue(request)
        self._limits.idle.pop(self, None)
        self._state = State.LINGERING
        self._deadline = self._loop.time() + self._timeouts.request_timeout_s
        self._reader.stop()
        request.keep_alive = False
        if request.response_complete:
            self._linger()
        elif isinstance(request, EventRequest) and request.early_response is None:
            self._refuse_request(request, error)

    def _linger(self) -> None:
        """Send nothing more, and close when the client does or after a while."""
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._deadline = self._loop.time() + LINGER_S

    # The connection ends

    def expire(self, now: float) -> None:
        """Close the connection if its time is up; called every second with the loop's time."""
        if self._transport.is_closing():
            # It is closed once the client has read the answers, which it may never do.
            if self._abort_at is None:
                self._abort_at = now + self._timeouts.request_timeout_s
            elif now >= self._abort_at:
                self._transport.abort()
        elif self._deadline is not None and now >= self._deadline:
            if self._state is State.HEAD or (self._state is State.BODY and self._requests):
                self.refuse_connection(Rejection(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time"))
            else:
                self._transport.close()

    def eof_received(self) -> bool:
        """Return whether the client, which sends nothing more, still waits for an answer; close behind the last one."""
        if self._is_arriving or not self._requests:
            return False
        self._requests[-1].keep_alive = False
        return True

    def shutdown(self) -> None:
        """Close once every request is answered; uvicorn calls this at the server's end."""
        if self._requests:
            self._requests[-1].keep_alive = False
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free everything but a request that the pipeline has: its memory is used until it is answered."""
        del exc
        self._connections.discard(self)
        self._unparsed = b""
        self._limits.idle.pop(self, None)
        self._limits.slow.pop(self, None)
        self._limits.set_used_bytes(self, 0)
        for number, request in enumerate(self._requests):
            if isinstance(request, AsgiRequest):
                request.disconnect()
            elif number > 0 or request is self._arriving:
                self._limits.set_used_bytes(request, 0)
        self._requests.clear()
        self._arriving = None
        self._flow.resume_writing()
        self._reader.close()
