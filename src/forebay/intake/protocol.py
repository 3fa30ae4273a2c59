"""The HTTP connection: uvicorn's protocol, with the event addresses answered without an ASGI scope.

Every other request goes to the ASGI application untouched. The bytes of head and body are counted here as they arrive.
"""

from __future__ import annotations

from typing import cast

import httptools
import structlog

from forebay.errors import Rejection
from forebay.intake import replies
from forebay.intake.exchange import Exchange
from forebay.intake.intake import Intake
from forebay.intake.refusing import ConnectionLimits, RefusingProtocol
from forebay.intake.replies import Reply
from forebay.intake.targets import METHODS, resolve

log = structlog.get_logger("forebay.intake")


class IntakeProtocol(RefusingProtocol):
    """One connection. `bound_to` makes the class that uvicorn is given."""

    _chunk_bytes = 0  # of what arrived last
    _stalled_bytes = 0  # of what arrived since a head began, or since the last piece of a body

    @classmethod
    def bound_to(cls, intake: Intake, limits: ConnectionLimits) -> type[IntakeProtocol]:
        """Return this protocol with its intake: uvicorn takes a class and makes the connections itself."""
        return cast("type[IntakeProtocol]", type(cls.__name__, (cls,), {"intake": intake, "limits": limits}))

    # What arrives

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if self._refused:
            return
        self._chunk_bytes = len(data)
        self._stalled_bytes += len(data)
        try:
            self._parse(data)
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
        self._stalled_bytes = 0
        self._receiving = True
        self._deadline = self.loop.time() + self.limits.request_timeout_s

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line; what stands behind a body is of no use here."""
        if self._in_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide who answers the request, now that its head is there."""
        if self._is_deaf or self.parser.should_upgrade():
            return
        # Measured only where what arrived leaves room for doubt.
        if self._stalled_bytes + self._chunk_bytes > self.limits.header_bytes_max and self._head_is_too_large():
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
        exchange.head_only = method == b"HEAD"
        self._queue(exchange)
        try:
            self.intake.check_head(exchange)
        except Rejection as error:
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
            if len(exchange.body) > self.intake.limits.body_bytes_max:
                self._refuse_early(exchange, self.intake.too_large())

    def on_message_complete(self) -> None:
        """Take the request, now that it has arrived whole."""
        exchange = self._exchange
        if self._is_deaf or self.parser.should_upgrade():
            return
        self._receiving = False
        # The ASGI application may have answered before the body was there.
        self._deadline = None if self._unanswered else self.loop.time() + self.limits.keep_alive_s
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

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        """Count an answer and write it."""
        self.intake.counters.requests[reply[0]] += 1
        super().answer(exchange, reply)

    def _head_is_too_large(self) -> bool:
        head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return head_bytes > self.limits.header_bytes_max

    def _refuse_head(self) -> None:
        self._refuse_connection(Rejection(431, f"the head is larger than {self.limits.header_bytes_max} bytes"))
