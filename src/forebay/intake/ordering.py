"""One connection's requests in their order: whose turn it is, and the answers as they leave.

A request for an event address stands in uvicorn's own queue (`cycle`, the newest request, and `pipeline`, those that
wait) like any request for the ASGI application. So pipelined requests are answered in the order in which they came, and
a graceful shutdown waits for each of them.
"""

from __future__ import annotations

import abc
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from forebay.intake.exchange import Exchange
from forebay.intake.replies import Reply


class OrderedProtocol(HttpToolsProtocol, abc.ABC):
    """uvicorn's protocol, with exchanges in its queue."""

    _advancing = False
    _default_headers: list[tuple[bytes, bytes]] | None = None
    _common_lines = b""

    @abc.abstractmethod
    def _begin(self, exchange: Exchange) -> None:
        """Take a request whose turn it is."""

    @abc.abstractmethod
    def _become_idle(self) -> None:
        """Hear that every request so far is answered."""

    @abc.abstractmethod
    def _read_on(self) -> None:
        """Go on with what has arrived and was left while no requests were taken."""

    @property
    def _unanswered(self) -> bool:
        """Whether the newest request waits for its answer."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

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

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        """Write an answer and let the next request of the connection begin."""
        _, head, body = reply
        exchange.response_complete = True
        if self.transport.is_closing():
            return
        if exchange.head_only:
            body = b""
        connection_line = exchange.kept_line if exchange.keep_alive else b"connection: close\r\n"
        self.transport.write(b"%b%b%b\r\n%b" % (head, self._date_line(), connection_line, body))
        if not exchange.keep_alive and exchange.early_reply is None:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request of the queue, of either kind."""
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
            self._resume()
        if self.cycle.response_complete:
            self._become_idle()

    def pause_writing(self) -> None:
        """Take no more requests while the client does not read the answers to those it sent."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Take requests again."""
        super().resume_writing()
        if not self.pipeline:
            self._resume()

    def _resume(self) -> None:
        self.flow.resume_reading()
        self._read_on()

    def _date_line(self) -> bytes:
        default = self.server_state.default_headers
        if default is not self._default_headers:
            self._default_headers = default
            self._common_lines = b"".join(b"%b: %b\r\n" % line for line in default)
        return self._common_lines
