"""The HTTP connection: uvicorn's httptools protocol, with the event addresses answered without an ASGI scope.

Every other request goes to the ASGI application untouched. A request for an event address stands in uvicorn's own
queue of requests (`cycle` and `pipeline`) like any other, so that pipelined requests are answered in their order and a
graceful shutdown waits for it.

Everything that a client can do without end has a limit here: the head (431), the body (413), the time for a request to
arrive (408), idle connections, and answers that nobody reads (reading pauses).
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, cast

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from forebay.errors import Rejection
from forebay.intake import replies
from forebay.intake.exchange import Exchange, Target
from forebay.intake.intake import Intake
from forebay.intake.replies import Reply

log = structlog.get_logger("forebay.intake")

TARGETS = {target.value.encode(): target for target in Target}
METHODS = {Target.PING: (b"GET", b"HEAD"), Target.EVENT: (b"POST",), Target.BATCH: (b"POST",)}


class ConnectionLimits(NamedTuple):
    """What one connection may take up."""

    header_bytes_max: int
    request_timeout_s: float
    keep_alive_s: float


class IntakeProtocol(HttpToolsProtocol):
    """One connection. `bound_to` makes the class that uvicorn is given."""

    intake: Intake
    limits: ConnectionLimits

    @classmethod
    def bound_to(cls, intake: Intake, limits: ConnectionLimits) -> type[IntakeProtocol]:
        """Return this protocol with its intake: uvicorn takes a class and makes the connections itself."""
        return cast("type[IntakeProtocol]", type(cls.__name__, (cls,), {"intake": intake, "limits": limits}))

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._exchange: Exchange | None = None
        self._in_head = False
        self._chunk_bytes = 0
        self._stalled_bytes = 0
        self._receiving = False
        self._advancing = False
        self._deadline: float | None = self.loop.time() + self.limits.request_timeout_s
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._common_lines = b""

    # What arrives

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        self._chunk_bytes = len(data)
        if self._in_head:
            self._stalled_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No protocol to change to is offered; the request itself is answered.
            self.flow.pause_reading()
        except httptools.HttpParserCallbackError:
            log.exception("connection_failed")
            self.transport.close()
        except httptools.HttpParserError:
            self._refuse_connection(Rejection(400, "the request is not HTTP"))
        if self._in_head and self._stalled_bytes > self.limits.header_bytes_max:
            # The parser keeps an unfinished line to itself, so that only what came is known.
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url = b""
        self.headers = []
        self._exchange = None
        self._in_head = True
        self._stalled_bytes = 0
        self._receiving = True
        self._deadline = self.loop.time() + self.limits.request_timeout_s

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide who answers the request, now that its head is there."""
        self._in_head = False
        if self.transport.is_closing():
            return
        # Measured only where what arrived leaves room for doubt.
        if self._stalled_bytes + self._chunk_bytes > self.limits.header_bytes_max and self._head_is_too_large():
            self._refuse_head()
            return
        target, query = _resolve(self.url)
        method = self.parser.get_method()
        if target is None or method not in METHODS[target]:
            self._hand_over()
            return
        exchange = self._exchange = Exchange(self, target, query, {name.lower(): value for name, value in self.headers})
        exchange.keep_alive = self.parser.should_keep_alive()
        exchange.head_only = method == b"HEAD"
        self._queue(exchange)
        try:
            self.intake.check_head(exchange)
        except Rejection as error:
            self._refuse_early(exchange, error)
            return
        if exchange.headers.get(b"expect", b"").lower() == b"100-continue" and not self.pipeline:
            self.transport.write(replies.CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        exchange = self._exchange
        if self.transport.is_closing():
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
        self._receiving = False
        self._deadline = None
        if self.transport.is_closing():
            return
        if exchange is None:
            super().on_message_complete()
        elif not self.pipeline:
            self._begin(exchange)

    # The order of requests

    def _hand_over(self) -> None:
        """Give a request to the ASGI application, as uvicorn would have from the start."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def _queue(self, exchange: Exchange) -> None:
        is_busy = self._unanswered
        self.cycle = cast("RequestResponseCycle", exchange)
        if is_busy:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if isinstance(cycle, Exchange):
            self._begin(cycle)
        else:
            super()._start_asgi_task(cycle, app)

    @property
    def _unanswered(self) -> bool:
        """Whether the newest request waits for its answer."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _begin(self, exchange: Exchange) -> None:
        """Take a request whose turn it is, unless it is still arriving."""
        if exchange.early_reply is not None:
            if not exchange.response_complete:
                exchange.reply(exchange.early_reply)
            if not self._receiving:
                self.transport.close()
        elif not (self._receiving and exchange is self._exchange):
            self._take(exchange)

    def _take(self, exchange: Exchange) -> None:
        try:
            self.intake.take(exchange)
        except Exception:
            log.exception("request_failed", target=exchange.target.value)
            exchange.keep_alive = False
            exchange.reply(replies.failed())

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        """Write an answer and let the next request of the connection begin."""
        status, head, body = reply
        exchange.response_complete = True
        self.intake.counters.requests[status] += 1
        if exchange.head_only:
            body = b""
        if self.transport.is_closing():
            return
        if exchange.keep_alive:
            self.transport.write(b"%b%b\r\n%b" % (head, self._date_line(), body))
        else:
            self.transport.write(b"%b%bconnection: close\r\n\r\n%b" % (head, self._date_line(), body))
            if exchange.early_reply is None:
                self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request of the queue, of either kind; without one the connection is idle."""
        self.server_state.total_requests += 1
        # A loop, and not a call within a call for each of thousands of requests that came in one piece.
        if self._advancing or self.transport.is_closing():
            return
        self._advancing = True
        while self.pipeline and not self.transport.is_closing():
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            if not cycle.response_complete:
                break
        self._advancing = False
        if self.pipeline:
            return
        if not self.flow.write_paused:
            self.flow.resume_reading()
        if self.cycle.response_complete and not self._receiving:
            # A reading of the clock instead of a timer for each answer; `expire` looks at it.
            self._deadline = self.loop.time() + self.limits.keep_alive_s

    def _date_line(self) -> bytes:
        default = self.server_state.default_headers
        if default is not self._default_headers:
            self._default_headers = default
            self._common_lines = b"".join(b"%b: %b\r\n" % line for line in default)
        return self._common_lines

    # Limits

    def expire(self, now: float) -> None:
        """Close the connection if its time is up; called every second with the loop's time."""
        if self._deadline is None or now < self._deadline or self.transport.is_closing():
            return
        if self._receiving and self._unanswered == (self._exchange is not None):
            self._refuse_connection(Rejection(408, "the request did not arrive in time"))
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """Take no more requests while the client does not read the answers to those it sent."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Take requests again."""
        super().resume_writing()
        if not self.pipeline:
            self.flow.resume_reading()

    def _head_is_too_large(self) -> bool:
        head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return head_bytes > self.limits.header_bytes_max

    def _refuse_head(self) -> None:
        self._refuse_connection(Rejection(431, f"the head is larger than {self.limits.header_bytes_max} bytes"))

    def _refuse_early(self, exchange: Exchange, error: Rejection) -> None:
        """Answer before the body has arrived, and read on without keeping it.

        Closing at once would reset the connection under a client that is still sending, and it would never see why.
        """
        self.intake.counters.rejected += 1
        exchange.keep_alive = False
        exchange.body = b""
        exchange.early_reply = replies.rejection(error)
        if not self.pipeline:
            self._begin(exchange)

    def _refuse_connection(self, error: Rejection) -> None:
        """Answer what cannot be taken as a request, and close."""
        if self.transport.is_closing():
            return
        status, head, body = replies.rejection(error)
        self.intake.counters.requests[status] += 1
        self.transport.write(b"%b%bconnection: close\r\n\r\n%b" % (head, self._date_line(), body))
        self.transport.close()


def _resolve(url: bytes) -> tuple[Target | None, bytes]:
    """Return which event address a request is for, if any, and its query."""
    target = TARGETS.get(url)
    if target is not None:
        return target, b""
    if b"?" not in url and url.startswith(b"/"):
        return None, b""
    try:
        # Also the absolute form, which a server must accept (RFC 9112, section 3.2.2).
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return None, b""
    return TARGETS.get(parsed.path or b""), parsed.query or b""
