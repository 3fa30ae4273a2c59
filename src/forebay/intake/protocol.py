"""The HTTP connection: uvicorn's protocol, with the event addresses answered without an ASGI scope.

Every other request goes to the ASGI application untouched. The bytes of head and body are counted here as they arrive.
"""

from __future__ import annotations

from typing import cast

import httptools
import structlog

from forebay.errors import Rejection
from forebay.intake import replies
from forebay.intake.crowd import Crowd
from forebay.intake.exchange import KEEP_ALIVE_LINE, Exchange
from forebay.intake.intake import Intake
from forebay.intake.refusing import HEADER_LINES_MAX, ConnectionLimits, RefusingProtocol
from forebay.intake.replies import Reply
from forebay.intake.targets import METHODS, resolve

log = structlog.get_logger("forebay.intake")

PIECE_BYTES = 16 * 1024
"""How much is parsed at once: as many requests as fit into it may stand in the queue, each of 20 bytes and more."""

REQUESTS_A_TURN = 100
"""How many requests of one connection are answered before it is others' turn: thousands may arrive in one piece."""

EVENT_BYTES = 500
"""What an event takes in memory until it is answered, beside the bytes of its entry: its result, mostly."""


class IntakeProtocol(RefusingProtocol):
    """One connection. `bound_to` makes the class that uvicorn is given."""

    _parsing = False

    @classmethod
    def bound_to(cls, intake: Intake, limits: ConnectionLimits, crowd: Crowd) -> type[IntakeProtocol]:
        """Return this protocol with its intake: uvicorn takes a class and makes the connections itself."""
        bound = {"intake": intake, "limits": limits, "crowd": crowd}
        return cast("type[IntakeProtocol]", type(cls.__name__, (cls,), bound))

    # What arrives

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        self._unparsed = self._unparsed + data if self._unparsed else data
        self._read_on()

    def _read_on(self) -> None:
        """Parse as much of what has arrived as requests are taken now."""
        if self._parsing:
            return
        self._parsing = True
        turn_ends_at = self.server_state.total_requests + REQUESTS_A_TURN
        while self._unparsed and not self._is_deaf and not self.flow.read_paused:
            if self.server_state.total_requests >= turn_ends_at:
                self.flow.pause_reading()
                self.loop.call_soon(self._take_turn)
                break
            piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
            self._parse_piece(piece)
        self._parsing = False
        if self._is_deaf:
            self._unparsed = b""
        if self._receiving or self._unparsed or self in self.crowd.slow:
            self._weigh()

    def _take_turn(self) -> None:
        if not (self.pipeline or self.flow.write_paused or self._is_deaf):
            self._resume()

    def _parse_piece(self, piece: bytes) -> None:
        self._piece_bytes = len(piece)
        self._stalled_bytes += len(piece)
        try:
            self._parse(piece)
        except httptools.HttpParserCallbackError:
            log.exception("connection_failed")
            self.transport.close()
        except httptools.HttpParserError:
            self._refuse_connection(Rejection(400, "the request is not HTTP"))
        if self._receiving and self._stalled_bytes > self.limits.header_bytes_max:
            # The parser keeps an unfinished line to itself, in the head or behind the body, so that only what came is
            # known.
            self._refuse_head()

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                # It has read the head, and would skip the body for the sake of a protocol that is not offered here. A
                # server may answer as if nothing had been asked for (RFC 9110, section 7.8).
                rest = rest[upgrade.args[0] :]
                if self.parser.get_method() == b"CONNECT":
                    self._refuse_connection(Rejection(501, "this is no proxy"))
                    return
                head = self._head_without_upgrade()
                self._piece_bytes += len(head)
                # A parser that has given up is of no use where the connection is to be closed behind the request.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(head)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b: %b\r\n" % line for line in self.headers if line[0].lower() != b"upgrade"]
        version = self.parser.get_http_version().encode()
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(lines))

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._refused:
            return
        self.url = b""
        self.headers = []
        self._exchange = None
        self._in_head = True
        self.crowd.idle.pop(self, None)
        self._stalled_bytes = 0
        self._first_piece_bytes = self._piece_bytes
        self._receiving = True
        self._deadline = self.loop.time() + self.limits.request_timeout_s

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line; what stands behind a body is of no use here."""
        if not self._in_head or self._refused:
            return
        self.headers.append((name, value))
        if len(self.headers) > HEADER_LINES_MAX:
            self._refuse_connection(Rejection(431, f"the head has more than {HEADER_LINES_MAX} lines"))

    def on_headers_complete(self) -> None:
        """Decide who answers the request, now that its head is there."""
        if self._is_deaf or self.parser.should_upgrade():
            return
        # Measured only where what arrived leaves room for doubt.
        if self._first_piece_bytes + self._stalled_bytes > self.limits.header_bytes_max and self._head_is_too_large():
            self._refuse_head()
            return
        try:
            target, query = resolve(self.url)
        except Rejection as error:
            self._refuse_connection(error)
            return
        self._in_head = False
        self._stalled_bytes = 0
        method = self.parser.get_method()
        if target is None or method not in METHODS[target]:
            self._hand_over()
            return
        headers = {name.lower(): value for name, value in self.headers}
        exchange = self._exchange = Exchange(self, self.intake.counters, target, query, headers)
        exchange.keep_alive = self.parser.should_keep_alive()
        if b"connection" in headers and self.parser.get_http_version() == "1.0":
            exchange.kept_line = KEEP_ALIVE_LINE
        exchange.head_only = method == b"HEAD"
        self._queue(exchange)
        try:
            self.intake.check_head(exchange)
        except Rejection as error:
            self.intake.counters.rejected += 1
            self._refuse_early(exchange, error)
            return
        if exchange.headers.get(b"expect", b"").lower() == b"100-continue":
            self._ask_for_body()

    def _ask_for_body(self) -> None:
        # Behind an unanswered request, or in HTTP/1.0, it would be taken for an answer.
        if not self.pipeline and self.parser.get_http_version() != "1.0":
            self.transport.write(replies.CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        exchange = self._exchange
        self._stalled_bytes = 0
        if self._is_deaf:
            return
        if exchange is None:
            super().on_body(body)
        elif exchange.early_reply is None:
            exchange.receive(body)
            self.crowd.weigh(exchange, len(exchange.body))
            if len(exchange.body) > self.intake.limits.body_bytes_max:
                self.intake.counters.rejected += 1
                self._refuse_early(exchange, self.intake.too_large())
            elif not self.crowd.has_room():
                self._refuse_early(exchange, self.crowd.refuse())

    def on_message_complete(self) -> None:
        """Take the request, now that it has arrived whole."""
        exchange = self._exchange
        if self._is_deaf or self.parser.should_upgrade():
            return
        self._receiving = False
        if self._unanswered:
            self._deadline = None
        else:
            # The ASGI application has answered before the body was there.
            self._become_idle()
        if exchange is None:
            super().on_message_complete()
        elif not self.pipeline:
            self._begin(exchange)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Still answer a client that sends nothing more and waits for the answer; say whether there is one to come."""
        if self._receiving or not self._unanswered:
            return False
        self.cycle.keep_alive = False
        return True

    # Who answers

    def _hand_over(self) -> None:
        """Give a request to the ASGI application, as uvicorn would have from the start."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def _take(self, exchange: Exchange) -> None:
        try:
            self.intake.take(exchange)
        except Exception:
            log.exception("request_failed", target=exchange.target.value)
            exchange.keep_alive = False
            exchange.reply(replies.failed())
        if not exchange.response_complete:
            self.crowd.weigh(exchange, exchange.entry_bytes + EVENT_BYTES * len(exchange.entries))

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        """Count an answer and write it."""
        self.intake.counters.requests[reply[0]] += 1
        self.crowd.weigh(exchange, 0)
        exchange.forget()
        super().answer(exchange, reply)

    def _head_is_too_large(self) -> bool:
        first_line = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        lines_bytes = sum(len(name) + len(b": ") + len(value) + len(b"\r\n") for name, value in self.headers)
        return len(first_line) + lines_bytes + len(b"\r\n") > self.limits.header_bytes_max

    def _refuse_head(self) -> None:
        self._refuse_connection(Rejection(431, f"the head is larger than {self.limits.header_bytes_max} bytes"))
