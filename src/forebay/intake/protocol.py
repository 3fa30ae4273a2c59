"""The requests of an HTTP connection: every byte of them arrives here, and every answer leaves here.

Requests for the event addresses are answered without an ASGI scope; every other request goes to the ASGI application.
Requests are answered in the order in which they came, of either kind. The refusals, the limits and the end of a
connection are in its base, `BoundedConnection`.
"""

from __future__ import annotations

import structlog
import uvicorn
from uvicorn.server import ServerState

from forebay.errors import Rejection
from forebay.intake import responses
from forebay.intake.asgi import AsgiRequest
from forebay.intake.connection import BoundedConnection, State
from forebay.intake.intake import Intake
from forebay.intake.limits import ConnectionLimits, ConnectionTimeouts
from forebay.intake.reader import RequestReader
from forebay.intake.request import KEEP_ALIVE_LINE, METHODS, EventRequest, Route, resolve
from forebay.intake.responses import CLOSE_LINE, Response

log = structlog.get_logger("forebay.intake")

PIECE_BYTES = 16 * 1024
"""How much is parsed at once. Every request in a piece may have to wait in memory; the smallest has 20 bytes."""

REQUESTS_A_TURN = 100
"""Requests of one connection that are answered before other connections get a turn: thousands may arrive at once."""

EVENT_BYTES = 500
"""Memory of an event until it is answered, beside the bytes of its entry: its result, mostly."""


class IntakeProtocol(BoundedConnection):
    """Takes the requests of one connection, and writes their answers."""

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
        reader = RequestReader(self, intake.limits.header_bytes_max)
        super().__init__(reader, intake.counters, timeouts, limits, server_state)
        self._intake = intake
        self._app = config.loaded_app
        self._parsing = False
        self._starting = False

    # Input arrives

    def data_received(self, data: bytes) -> None:
        """Parse the input."""
        self.unparsed = self.unparsed + data if self.unparsed else data
        self._read_on()

    def _read_on(self) -> None:
        """Parse the input, as far as requests are taken now."""
        if self._parsing:
            return
        self._parsing = True
        turn_ends_at = self.server_state.total_requests + REQUESTS_A_TURN
        while self.unparsed and not self.drops_input and not self.flow.read_paused:
            if self.server_state.total_requests >= turn_ends_at:
                self.flow.pause_reading()
                self.loop.call_soon(self._begin_turn)
                break
            piece, self.unparsed = self.unparsed[:PIECE_BYTES], self.unparsed[PIECE_BYTES:]
            try:
                self.reader.feed(piece)
            except Exception:
                log.exception("connection_failed")
                self.transport.close()
        self._parsing = False
        if self.unparsed and self.drops_input:
            self.unparsed = b""
        if self.is_arriving or self.unparsed or self in self.limits.slow:
            self.count_memory()

    def _begin_turn(self) -> None:
        if not (len(self.requests) > 1 or self.flow.write_paused or self.drops_input):
            self._resume()

    def _resume(self) -> None:
        self.flow.resume_reading()
        if self.unparsed or self in self.limits.slow:
            self._read_on()

    def resume_writing(self) -> None:
        """Take requests again, as the client reads its answers."""
        self.flow.resume_writing()
        if len(self.requests) <= 1:
            self._resume()

    # A request arrives: the reader calls these

    def begin_request(self) -> None:
        """Begin a request."""
        self.limits.idle.pop(self, None)
        self.state = State.HEAD
        self.deadline = self.loop.time() + self.timeouts.request_timeout_s

    def take_head(self) -> None:
        """Decide who answers the request."""
        if self.transport.is_closing():
            return
        try:
            route, query = resolve(self.reader.url)
        except Rejection as error:
            self.refuse_connection(error)
            return
        self.state = State.BODY
        method = self.reader.method
        if route is None or method not in METHODS[route]:
            self._begin_asgi_request()
        else:
            self._begin_event_request(route, query, method)

    def _begin_asgi_request(self) -> None:
        request = self.arriving = AsgiRequest(
            self.reader, self.flow, self.transport, self.server_state, self._finish_request
        )
        self._queue(request)
        if self.requests[0] is request:
            self._start(request)

    def _begin_event_request(self, route: Route, query: bytes, method: bytes) -> None:
        headers = {name.lower(): value for name, value in self.reader.headers}
        request = self.arriving = EventRequest(self, self.counters, route, query, headers)
        request.keep_alive = self.reader.keep_alive
        if b"connection" in headers and self.reader.http_version == "1.0":
            request.keep_alive_line = KEEP_ALIVE_LINE
        request.head_only = method == b"HEAD"
        self._queue(request)
        try:
            self._intake.check_head(request)
        except Rejection as error:
            self.counters.rejected += 1
            self.refuse_request(request, error)
            return
        is_asked = headers.get(b"expect", b"").lower() == b"100-continue"
        # After an unanswered request, or in HTTP/1.0, it would be taken for an answer.
        if is_asked and len(self.requests) == 1 and self.reader.http_version != "1.0":
            self.transport.write(responses.CONTINUE)

    def take_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        request = self.arriving
        if request is None:
            return
        if isinstance(request, AsgiRequest):
            request.receive_body(data)
        elif request.early_response is None:
            request.receive(data)
            self.limits.set_used_bytes(request, len(request.body))
            if len(request.body) > self._intake.limits.body_bytes_max:
                self.counters.rejected += 1
                self.refuse_request(request, self._intake.too_large())
            elif self.limits.exceeded:
                self.find_memory(request)

    def end_request(self) -> None:
        """Take the request, now that it has arrived whole."""
        request = self.arriving
        if request is None or self.transport.is_closing():
            return
        self.arriving = None
        self.state = State.WAITING
        self.deadline = None
        if isinstance(request, AsgiRequest):
            request.end_body()
        elif request.response_complete:
            # It was refused, and its client has sent the rest all the same.
            self.transport.close()
        elif self.requests[0] is request:
            self._start(request)
        if not self.requests:
            # The ASGI application may have answered before the body was there.
            self._become_idle()

    # Requests are answered in their order

    def _queue(self, request: EventRequest | AsgiRequest) -> None:
        self.requests.append(request)
        if len(self.requests) > 1:
            self.flow.pause_reading()

    def _start(self, request: EventRequest | AsgiRequest) -> None:
        """Start the first request of the queue; one for an event address only if it has arrived whole."""
        if isinstance(request, AsgiRequest):
            request.start(self._app)
        elif request.early_response is not None:
            request.reply(request.early_response)
        elif request is not self.arriving:
            self._take(request)

    def _take(self, request: EventRequest) -> None:
        try:
            self._intake.take(request)
        except Exception:
            log.exception("request_failed", path=request.route.value)
            request.keep_alive = False
            request.reply(responses.failed())
        if not request.response_complete:
            self.limits.set_used_bytes(request, request.entry_bytes + EVENT_BYTES * len(request.entries))

    def answer(self, request: EventRequest, response: Response) -> None:
        """Write the answer to the first request of the queue, and go on with the next."""
        self.counters.requests[response[0]] += 1
        self.limits.set_used_bytes(request, 0)
        request.response_complete = True
        if self.transport.is_closing():
            return
        connection_line = request.keep_alive_line if request.keep_alive else CLOSE_LINE
        if request.head_only:
            response = (response[0], response[1], b"")
        self.transport.write(responses.as_bytes(response, self.server_state.default_headers, connection_line))
        if not request.keep_alive:
            self.close_after(request)
        self._finish_request()

    def abandon(self, request: EventRequest) -> None:
        """Close the connection without an answer to this request, after the answers to those before it."""
        self.limits.set_used_bytes(request, 0)
        request.response_complete = True
        self.transport.close()

    def _finish_request(self) -> None:
        """Go on with the next request, now that the first of the queue is answered."""
        self.server_state.total_requests += 1
        self.requests.popleft()
        # A loop, and not a call within a call for each of thousands of requests that came in one piece.
        if self._starting or self.transport.is_closing():
            return
        self._starting = True
        while self.requests and not self.transport.is_closing():
            request = self.requests[0]
            self._start(request)
            if not request.response_complete:
                break
        self._starting = False
        if len(self.requests) > 1:
            return
        if not self.flow.write_paused:
            self._resume()
        if not self.requests:
            self.send_refusal()
            self._become_idle()

    def _become_idle(self) -> None:
        if self.state is State.WAITING:
            self.state = State.IDLE
            # A reading of the clock instead of a timer for each answer; `expire` compares it.
            self.deadline = self.loop.time() + self.timeouts.keep_alive_s
            self.limits.idle[self] = None
