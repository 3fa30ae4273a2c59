"""One HTTP connection: every byte of its requests arrives here, and every answer leaves here.

Requests for the event addresses are answered without an ASGI scope; every other request goes to the ASGI application.
Everything that a client can do without end has a limit: the head (431), the body (413), the time for a request to
arrive (408), idle connections, answers that nobody reads, and the memory and number of all connections (503). A refusal
waits for its turn like any answer, so that an event before it still gets its own. Then the connection lingers, so that
the client can read the reason.
"""

from __future__ import annotations

import asyncio
import enum
from http import HTTPStatus
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from forebay.errors import NotYet, Rejection
from forebay.intake import answers, refusals
from forebay.intake.addresses import find_peer
from forebay.intake.answers import Answer, AnswerQueue, KnownTurn, ServerLines, Turn
from forebay.intake.asgi import AsgiRequest, AsgiRequests
from forebay.intake.formats.registry import resolve
from forebay.intake.guard import UNDECIDED, Head, find_format, join_lines, too_large
from forebay.intake.heads import Grant, find_end, find_request_end
from forebay.intake.intake import Intake, Request
from forebay.intake.limits import ConnectionLimits, ConnectionTimeouts, UnreadAnswers, overloaded
from forebay.intake.reader import RequestReader
from forebay.pipeline.admitter import SHUTTING_DOWN

log = structlog.get_logger("forebay.intake")

PIECE_BYTES = 2 * 1024
"""How much is parsed before other connections get a turn, or one request. The smallest request has 20 bytes."""

BODY_PIECE_BYTES = 16 * 1024
"""The same within a body, which takes next to nothing to parse."""

EXCESS_PAUSE_S = 0.02
"""How long input waits if several requests behind each other were over a limit. Each has one sender: no proxy sends the
requests of several clients without waiting for answers. Meanwhile its limit allows more events again."""

UNANSWERED_MAX = 100
"""How many requests of a connection may wait for answers before its input is left waiting, too."""

EVENT_BYTES = 500
"""Memory of an event until it is answered, beside the bytes of its entry: its result, mostly."""

PING = {b"GET": answers.PONG, b"HEAD": answers.PONG_WITHOUT_BODY}


class State(enum.Enum):
    """The state of a connection."""

    IDLE = enum.auto()  # no request has begun to arrive, and all are answered
    READING = enum.auto()  # a request is arriving
    WAITING = enum.auto()  # the newest request has arrived, and waits for its answer
    LINGERING = enum.auto()  # the input was refused; the rest of it is dropped until the connection closes


# Looked up once: Python 3.11 takes longer to find the member of an enum than to call a function.
IDLE, READING, WAITING, LINGERING = State


class Connection(asyncio.Protocol):
    """Takes the requests of one connection, and writes their answers.

    Attributes:
        peer: the address of its other end; empty if that has none.
        used_bytes: memory that waits for the client; `ConnectionLimits` sets it.
    """

    used_bytes = 0

    def __init__(
        self,
        intake: Intake,
        timeouts: ConnectionTimeouts,
        limits: ConnectionLimits,
        lines: ServerLines,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        **_: object,  # uvicorn passes more, which is not needed here
    ) -> None:
        self._intake = intake
        self._timeouts = timeouts
        self._limits = limits
        self._lines = lines
        self._app = config.loaded_app
        self._server_state = server_state
        self._connections: set[Any] = server_state.connections  # uvicorn's type names its own protocols only
        self._loop = asyncio.get_running_loop()
        self._addresses = intake.addresses
        self._answered = intake.counters.requests
        self._reader = RequestReader(self, intake.limits.header_bytes_max)
        self._state = IDLE
        self._deadline: float | None = None  # of the state, by the loop's clock; None while the client waits for us
        self._unparsed = b""
        self._is_resuming = False
        self._has_answered = False  # whether answers to the newest piece are to be written
        self._excess = 0  # requests over a limit since answers were written
        self._new_grant: Grant | None = None  # of a head in the newest piece, if a request may be taken by it again
        self._arriving: Turn | None = None  # the request whose body is arriving
        self._body: bytes | bytearray = b""  # the part of it that is there
        self._body_bytes_max = 0  # how large it may be, if it is that of an event address

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin as an idle connection, if there is room for one more."""
        self._transport = transport
        self._flow = FlowControl(transport)
        self._queue = AnswerQueue(transport, self._limits)
        self._unread = UnreadAnswers(transport, self._timeouts.request_timeout_s)
        self._asgi = AsgiRequests(self._app, self._server_state, self._limits, self._flow, transport, self._queue)
        self._connections.add(self)
        self.peer = find_peer(transport)
        self._deadline = self._loop.time() + self._timeouts.keep_alive_s
        try:
            self._limits.make_room(len(self._connections))
        except Rejection as error:
            self.refuse(error)
            transport.close()
        else:
            self._limits.idle[self] = None

    # Input arrives

    def data_received(self, data: bytes) -> None:
        """Parse the input."""
        if self._unparsed or len(data) > PIECE_BYTES:
            self._unparsed += data
            self._read_pieces()
        else:
            self._read(data)

    def _read(self, piece: bytes) -> None:
        reader = self._reader
        try:
            while piece:
                is_between = not (reader.is_in_request or reader.is_stopped)
                known = self._intake.recall(self, piece) if is_between else None
                if known is None:
                    piece = self._parse(piece, is_between=is_between)
                else:
                    request, body, piece = known
                    self._queue.append(request)
                    self._wait()
                    self._take(request, body)
        except Exception:
            log.exception("connection_failed")
            self._transport.close()
        if self._has_answered:
            self._answer_piece()
        if reader.is_in_request:
            self._note_arriving()
        elif self.used_bytes:
            self._count_memory()

    def _answer_piece(self) -> None:
        """Write the answers to a piece; if several were to requests over a limit, read on later."""
        if self._excess > 1:
            self._flow.pause_reading()
            self._resume_soon()
        self._excess = 0
        self._has_answered = False
        self._write_due()

    def _parse(self, piece: bytes, *, is_between: bool) -> bytes:
        """Parse the first request of a piece, whose head may be known to the next one; return the rest of the piece.

        If only the parser can tell its end, that is the rest behind its head.
        """
        first = piece[: find_request_end(piece)] or piece if is_between else piece
        # One of a head that came in two pieces must not be taken for that of this piece.
        self._new_grant = None
        self._reader.feed(first)
        if is_between and self._new_grant is not None:
            self._remember(first, self._new_grant)
        rest = piece[len(first) :]
        if rest and self._asgi.are_many and not self._reader.is_in_request:
            self._unparsed = rest + self._unparsed
            self._count_memory()
            return b""
        return rest

    def _remember(self, piece: bytes, grant: Grant) -> None:
        """Remember the head of the request that was just parsed, if the piece is that request and nothing more."""
        reader = self._reader
        if reader.requests_begun == 1 and not (reader.is_in_request or reader.is_stopped):
            self._intake.heads.remember(self.peer, piece, reader.announced_body_bytes, grant)

    def _read_pieces(self) -> None:
        """Parse a piece of the input, or all of a request that begins in it; then others get a turn."""
        while self._unparsed and not self._flow.read_paused and not self._reader.is_stopped:
            size = self._piece_bytes()
            piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            self._read(piece)
            if self._unparsed and self._body_bytes_left() <= 0:
                self._flow.pause_reading()
                self._resume_soon()
        if self._reader.is_stopped:
            self._unparsed = b""
        if self._unparsed or self.used_bytes:
            self._count_memory()

    def _piece_bytes(self) -> int:
        if self._arriving is not None:
            left = self._body_bytes_left()
            return max(PIECE_BYTES, left) if left else BODY_PIECE_BYTES
        if self._reader.is_in_request or len(self._unparsed) > BODY_PIECE_BYTES:
            # The memory of a larger request is counted while it is read.
            return PIECE_BYTES
        return max(PIECE_BYTES, find_end(self._unparsed))

    def _body_bytes_left(self) -> int:
        """Return how much of an announced body is still to come; 0 if that is not known."""
        if isinstance(self._arriving, Request):
            return max(0, self._reader.announced_body_bytes - len(self._body))
        if isinstance(self._arriving, KnownTurn):
            return max(0, self._reader.announced_body_bytes - self._arriving.dropped_bytes)
        return 0

    def _note_arriving(self) -> None:
        """Take note that a part of a request has arrived: from the first one on, its time is limited."""
        if self._state is not READING:
            self._state = READING
            self._deadline = self._loop.time() + self._timeouts.request_timeout_s
            self._limits.idle.pop(self, None)
        self._count_memory()

    def _resume_soon(self) -> None:
        if not self._is_resuming:
            self._is_resuming = True
            if self._excess > 1:
                # However many connections flood, as much is read of all of them as of one.
                self._limits.paused += 1
                self._loop.call_later(EXCESS_PAUSE_S * self._limits.paused, self._end_pause)
            else:
                self._loop.call_soon(self._resume)

    def _end_pause(self) -> None:
        self._limits.paused -= 1
        self._resume()

    def _resume(self) -> None:
        """Take input again, unless the client has to read answers first."""
        self._is_resuming = False
        are_many = len(self._queue) >= UNANSWERED_MAX or self._asgi.are_many
        if not (are_many or self._flow.write_paused or self._transport.is_closing()):
            self._flow.resume_reading()
            self._read_pieces()

    # A request arrives: the reader calls these

    def take_head(self) -> None:
        """Decide who answers the request."""
        parser, url = self._reader.parser, self._reader.url
        try:
            path, query = (url, b"") if url in self._addresses else resolve(url)
        except Rejection as error:
            self.refuse(error)
            return
        formats, method = self._addresses.get(path), parser.get_method()
        if formats is not None and method == b"POST":
            client = self._intake.guard.proxies.find_client(self.peer.decode(), self._reader.headers)
            self._begin(Head(formats, query, join_lines(self._reader.headers), client))
        elif path == b"/ping" and method in PING:
            self._arriving = KnownTurn(answer=PING[method], connection_line=self._connection_line, is_counted=False)
        elif not (formats is not None and method == b"OPTIONS" and self._begin_preflight()):
            self._arriving = self._asgi.begin(self._reader, self._connection_line, self._write_due)
        if self._arriving is not None and not parser.should_keep_alive():
            self._arriving.is_last = True

    def _begin(self, head: Head) -> None:
        headers = head.headers
        lines = self._intake.guard.origins.find_lines(headers)
        is_asked = b"expect" in headers and headers[b"expect"].lower() == b"100-continue"
        turn: Turn
        try:
            turn = request = self._intake.begin(self, head)
        except Rejection as error:
            self._intake.counters.rejected += 1
            self._excess += error.status == HTTPStatus.TOO_MANY_REQUESTS
            answer = find_format(head).refuse(error)
            if is_asked or self._reader.announced_body_bytes > self._intake.limits.body_bytes_max:
                self._end_input(answer, lines)
                return
            turn = KnownTurn(answer=answer)
        else:
            self._body_bytes_max = self._intake.guard.body_bytes_max(head, request.grant)
            if is_asked:
                self._write_due()
            # After an unanswered request, or in HTTP/1.0, it would be taken for an answer.
            if is_asked and not self._queue and self._reader.parser.get_http_version() != "1.0":
                self._transport.write(answers.CONTINUE)
            elif not is_asked and self._reader.parser.get_http_version() != "1.0":
                self._new_grant = None if request.grant.version == UNDECIDED else request.grant
        if b"connection" in headers:
            turn.connection_line = self._connection_line
        turn.origin_lines = lines
        self._arriving = turn

    def _begin_preflight(self) -> bool:
        """Answer a browser that asks whether a page may send; return whether the request is such a question."""
        self._arriving = self._intake.guard.origins.answer_preflight(join_lines(self._reader.headers))
        return self._arriving is not None

    @property
    def _connection_line(self) -> bytes:
        return answers.KEEP_ALIVE_LINE if self._reader.parser.get_http_version() == "1.0" else b""

    def take_body(self, data: bytes) -> None:
        """Take a piece of the body; most bodies come in one piece, which is not copied."""
        turn = self._arriving
        if isinstance(turn, Request):
            if not self._body:
                self._body = data
            elif isinstance(self._body, bytearray):
                self._body += data
            else:
                self._body = bytearray(self._body) + data
            if len(self._body) > self._body_bytes_max:
                self._intake.counters.rejected += 1
                self.refuse(too_large(self._body_bytes_max))
        elif isinstance(turn, KnownTurn):
            turn.dropped_bytes += len(data)
            if turn.dropped_bytes > self._intake.limits.body_bytes_max:
                self._end_input(turn.answer)

    def end_request(self) -> None:
        """Take the request, now that it has arrived whole."""
        turn, self._arriving = self._arriving, None
        if turn is None:
            return
        if turn.is_last:
            self._reader.stop()
        if isinstance(turn, Request):
            body, self._body = bytes(self._body), b""
            self._queue.append(turn)
            self._wait()
            self._take(turn, body)
        elif isinstance(turn, KnownTurn):
            self._queue.append(turn)
            self._wait()
            self._answer_in_piece(turn, turn.answer)
        elif isinstance(turn, AsgiRequest):
            self._wait()
            if self._asgi.are_many:
                self._flow.pause_reading()
            # It may have been answered before its body was there.
            self._write_due()

    def _wait(self) -> None:
        if self._state is IDLE:
            self._limits.idle.pop(self, None)
        self._state = WAITING
        self._deadline = None
        if len(self._queue) >= UNANSWERED_MAX:
            self._flow.pause_reading()

    def _take(self, request: Request, body: bytes, *, is_last_try: bool = False) -> None:
        limits = self._limits
        try:
            if limits.used_bytes > limits.bytes_max:
                # Who sends too much is told so even now: to send again soon would be no use. Nobody makes room for him.
                self._intake.rates.check(request.grant.limited_as)
                if not limits.find_room():
                    self._answer_in_piece(request, request.grant.format.refuse(limits.reject_request()))
                    return
            if request.head is not None:
                self._intake.decide(request, request.head, body, is_last_try=is_last_try)
            self._intake.take(request, body)
        except NotYet as error:
            self._take_later(request, body, error)
            return
        except Rejection as error:
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                # A format may refuse a request with results because all of its events are refused.
                self._intake.counters.rejected += max(1, len(request.results))
            self._excess += error.status == HTTPStatus.TOO_MANY_REQUESTS
            self._answer_in_piece(request, request.grant.format.refuse(error))
            error.without_frames()  # it may be one of the request's results
        except Exception:
            log.exception("request_failed", path=request.grant.format.paths[0])
            request.is_last = True
            self._answer_in_piece(request, request.grant.format.refuse(refusals.FAILED))
        if request.response is None:
            request.used_bytes = request.entry_bytes + EVENT_BYTES * request.events
            limits.used_bytes += request.used_bytes

    def _take_later(self, request: Request, body: bytes, error: NotYet) -> None:
        """Take a request once the key of its token is there, or certainly is not; or its body is unpacked."""
        limits = self._limits
        # Anybody can make a token of a key that is not known: those who wait leave half of the memory to others.
        # Input of this connection counts as its own until it is parsed.
        if limits.used_bytes - self.used_bytes + len(body) > limits.bytes_max // 2:
            self.answer(request, request.grant.format.refuse(limits.reject_request()))
            return

        def take(_: object) -> None:
            limits.set_used_bytes(request, 0)
            # If the client is gone, or gets no more answers, it is to send its events again: none is taken now.
            if request not in self._queue or request.response is not None or self._transport.is_closing():
                return
            if request.head is None and request.grant.version != self._intake.guard.version:
                # It cannot be decided again. While a body is unpacked, the denial list changes hardly ever.
                refusal = refusals.unavailable(refusals.CHANGED)
                self.answer(request, request.grant.format.refuse(refusal))
                return
            self._take(request, body, is_last_try=True)
            self._answer_piece()

        limits.set_used_bytes(request, len(body))
        asyncio.ensure_future(error.wait()).add_done_callback(take)

    # Answers leave

    def _answer_in_piece(self, turn: Turn, answer: Answer) -> None:
        self._has_answered = True
        self.answer(turn, answer)

    def answer(self, turn: Turn, answer: Answer) -> None:
        """Write an answer in its turn: at once, or with all answers to the piece of the input that is being read."""
        status, head, body = answer
        if turn.is_counted:
            self._answered[status] += 1
        self._limits.used_bytes -= turn.used_bytes
        turn.used_bytes = 0
        line = answers.CLOSE_LINE if turn.is_last else turn.connection_line
        server_lines = self._lines.join(self._server_state.default_headers)
        turn.response = b"".join((head, server_lines, line, turn.origin_lines, b"\r\n", body))
        if self._queue and turn is not self._queue[0]:
            # It waits in memory for its turn: a client may send one request after the other while a disk hangs.
            self._limits.set_used_bytes(turn, len(turn.response))
        if not self._has_answered:
            self._write_due()

    def abandon(self, turn: Turn) -> None:
        """Close the connection in place of this answer, after the answers to the requests before it."""
        self._limits.set_used_bytes(turn, 0)
        turn.is_last = True
        turn.response = b""
        self._write_due()

    def _write_due(self) -> None:
        if self._transport.is_closing():
            return
        if self._queue.write_due():
            self._end()
        elif not self._queue and self._state is WAITING:
            self._state = IDLE
            # A reading of the clock instead of a timer for each answer; `expire` compares it.
            self._deadline = self._loop.time() + self._timeouts.keep_alive_s
            self._limits.idle[self] = None
        if self._flow.read_paused:
            self._resume_soon()

    def _end(self) -> None:
        """End the connection behind its last answer; if that refuses input, let the client read it first."""
        # Requests behind an event in doubt get no answer.
        self._queue.disconnect()
        if self._state is LINGERING:
            self._transport.write_eof()
            self._deadline = self._loop.time() + self._timeouts.request_timeout_s
            # Another connection may have its place.
            self._limits.idle[self] = None
        else:
            self._transport.close()

    def refuse(self, error: Rejection) -> None:
        """Answer input that is not taken, after all requests before it; drop the rest of it, and close.

        Closing at once would reset the connection under a client that is still sending, and it would never see why.
        """
        turn = self._arriving
        self._end_input(turn.grant.format.refuse(error) if isinstance(turn, Request) else refusals.rejection(error))

    def _end_input(self, answer: Answer, origin_lines: bytes = b"") -> None:
        if self._state is LINGERING or self._transport.is_closing():
            return
        turn, self._arriving = self._arriving, None
        self._limits.idle.pop(self, None)
        self._state = LINGERING
        self._deadline = None
        self._reader.stop()
        self._unparsed = self._body = b""
        if isinstance(turn, AsgiRequest):
            # The application answers it, or has done so.
            if turn.response is None:
                turn.end_connection()
            else:
                self._end()
            return
        lines, is_counted = (origin_lines, True) if turn is None else (turn.origin_lines, turn.is_counted)
        refusal = Turn(is_last=True, origin_lines=lines, is_counted=is_counted)
        self._queue.append(refusal)
        self.answer(refusal, answer)

    # Memory and time

    def pause_writing(self) -> None:
        """Take no more requests while the client does not read its answers, and count their memory."""
        self._flow.pause_writing()
        self._flow.pause_reading()
        self._count_memory()

    def resume_writing(self) -> None:
        """Take requests again, as the client reads its answers."""
        self._flow.resume_writing()
        self._unread.end()
        self._resume_soon()

    def _count_memory(self) -> None:
        """Tell the limits how much memory waits for the client here."""
        used_bytes = len(self._unparsed) + self._reader.head_memory_bytes + len(self._body)
        if self._flow.write_paused:
            used_bytes += self._transport.get_write_buffer_size()
        self._limits.set_used_bytes(self, used_bytes)
        if used_bytes:
            self._limits.slow.setdefault(self)
            self._limits.find_room()
        else:
            self._limits.slow.pop(self, None)

    def drop_slow_request(self) -> None:
        """Free the memory that the slow client takes, by a refusal or by closing."""
        self._limits.set_used_bytes(self, 0)
        if self._flow.write_paused:
            # It does not read its answers, so it would not read this one.
            self._transport.abort()
            self._queue.disconnect()
        else:
            self.refuse(overloaded("too many bytes of requests are in memory, and this one is slow to arrive"))

    def close_idle(self) -> None:
        """Close the idle connection, to make room for another."""
        self._transport.abort()

    def expire(self, now: float) -> None:
        """Close the connection if its time is up; called every second with the loop's time."""
        if self._flow.write_paused or self._transport.is_closing():
            # It goes on, or is closed, once the client has read the answers, which it may never do.
            if self._unread.has_lasted(now):
                self._transport.abort()
            if self._flow.write_paused:
                self._count_memory()
        elif self._deadline is not None and now >= self._deadline:
            if self._state is READING:
                if isinstance(self._arriving, KnownTurn):
                    # To send a refused request again would be no use.
                    self._end_input(self._arriving.answer)
                else:
                    self.refuse(Rejection(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time"))
                self._count_memory()
            else:
                self._transport.close()

    # The end

    def eof_received(self) -> bool:
        """Return whether the client, which sends nothing more, still waits for an answer; close after the last one."""
        if self._state is READING or not self._queue:
            return False
        self._queue.end_connection()
        return True

    def shutdown(self) -> None:
        """Close once every request is answered; uvicorn calls this at the server's end."""
        if self._arriving is not None:
            self._arriving.end_connection()
        elif self._queue:
            self._queue.end_connection()
            self._reader.stop()
        else:
            self._transport.close()

    def stop_waiting(self) -> None:
        """Wait no longer for the client, nor for the key of a token: the server's end is due."""
        if self._flow.write_paused or not self._queue:
            # Without a request in the queue it is the client for whom the connection is still there.
            self._transport.abort()
            return
        for turn in list(self._queue):
            # Its body is there and it is not decided: it waits for a key.
            if isinstance(turn, Request) and turn.head is not None and turn.response is None:
                self.answer(turn, turn.grant.format.refuse(refusals.unavailable(SHUTTING_DOWN)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Free everything but the requests that the pipeline has: their memory is used until they are answered."""
        del exc
        self._connections.discard(self)
        self._unparsed = self._body = b""
        self._limits.idle.pop(self, None)
        self._limits.slow.pop(self, None)
        self._limits.set_used_bytes(self, 0)
        self._queue.disconnect()
        self._arriving = None
        self._flow.resume_writing()
        self._reader.close()
