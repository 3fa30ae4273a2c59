"""A request that the ASGI application answers: every request that is not for an event address."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes

from uvicorn._types import HTTPScope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from forebay.errors import Rejection
from forebay.intake import refusals
from forebay.intake.answers import AnswerQueue, KnownTurn, Turn
from forebay.intake.formats.registry import resolve
from forebay.intake.limits import BLANKS, ConnectionLimits, overloaded
from forebay.intake.reader import HEADER_LINE_BYTES, RequestReader

log = logging.getLogger("uvicorn.error")

ASGI_UNANSWERED_MAX = 10
"""How many of a connection may wait for their answers: they take much more memory than others."""

ASGI_BYTES = 4_000
"""Memory of a request until it is answered, beside its address and its header lines: its scope, and later its task."""


class AsgiRequest(Turn, eq=False, kw_only=True):
    """Runs the ASGI application for one request, by uvicorn's own means; in its turn the application answers itself.

    The application gets no body: none of its addresses takes one.

    Attributes:
        app: the application.
        cycle: uvicorn's part of it.
        tasks: the server's.
    """

    app: Any
    cycle: RequestResponseCycle
    tasks: set[asyncio.Task[None]]

    @property
    def memory_bytes(self) -> int:
        """Its memory until it is answered."""
        scope = self.cycle.scope
        # A character of the path may take four bytes.
        address_bytes = sys.getsizeof(scope["path"]) + len(scope["raw_path"] or b"") + len(scope["query_string"])
        lines_bytes = sum(len(name) + len(value) + HEADER_LINE_BYTES for name, value in scope["headers"])
        return ASGI_BYTES + address_bytes + lines_bytes

    def begin(self) -> None:
        """Run the application, whether or not the body has arrived."""
        task = asyncio.get_running_loop().create_task(self.cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def disconnect(self) -> None:
        """Tell the application that the client is gone, and wait for its answer no longer."""
        self.response = b""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def end_connection(self) -> None:
        """Let the connection end behind it."""
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self.cycle.transport.close()


class AsgiRequests:
    """The requests of one connection that the ASGI application answers.

    Attributes:
        unanswered: how many have no answer yet.
    """

    def __init__(
        self,
        app: Any,
        server_state: ServerState,
        limits: ConnectionLimits,
        flow: FlowControl,
        transport: asyncio.Transport,
        queue: AnswerQueue,
    ) -> None:
        self._app = app
        self._server_state = server_state
        self._limits = limits
        self._flow = flow
        self._transport = transport
        self._queue = queue
        self.unanswered = 0

    @property
    def are_many(self) -> bool:
        """Whether no more may come."""
        return self.unanswered >= ASGI_UNANSWERED_MAX

    def begin(self, reader: RequestReader, connection_line: bytes, write_due: Callable[[], None]) -> Turn:
        """Let the application answer a request, unless it would have to wait and there is no room for it.

        `write_due` goes on behind it, once it is answered.
        """
        if self.are_many:
            return _refuse(
                overloaded("too many requests of the connection wait for their answers"), reader, connection_line
            )
        if self._queue and self._limits.exceeded:
            return _refuse(self._limits.reject_request(), reader, connection_line)

        def go_on() -> None:
            self.unanswered -= 1
            write_due()

        self.unanswered += 1
        turn = _make_request(reader, self._flow, self._transport, self._server_state, self._app, go_on)
        self._limits.set_used_bytes(turn, turn.memory_bytes)
        self._queue.append(turn)
        if len(self._queue) == 1:
            turn.begin()
        return turn


def _refuse(error: Rejection, reader: RequestReader, connection_line: bytes) -> KnownTurn:
    status, head, body = refusals.rejection(error)
    answer = (status, head, b"" if reader.parser.get_method() == b"HEAD" else body)
    return KnownTurn(answer=answer, connection_line=connection_line, is_counted=False)


def _make_request(
    reader: RequestReader,
    flow: FlowControl,
    transport: asyncio.Transport,
    server_state: ServerState,
    app: Any,
    go_on: Callable[[], None],
) -> AsgiRequest:
    """Return the request whose head the reader has read; `go_on` is called once it is answered."""
    headers = [(name.lower(), value.rstrip(BLANKS)) for name, value in reader.headers]
    version = reader.parser.get_http_version()

    def finish() -> None:
        request.response = b""
        go_on()

    cycle = RequestResponseCycle(
        scope=_scope(reader, headers, transport),
        transport=transport,
        flow=flow,
        logger=log,
        access_logger=log,
        access_log=False,
        default_headers=server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=version != "1.0" and reader.parser.should_keep_alive(),
        on_response=finish,
    )
    cycle.more_body = False
    cycle.message_event.set()
    request = AsgiRequest(app=app, cycle=cycle, tasks=server_state.tasks)
    return request


def _scope(reader: RequestReader, headers: list[tuple[bytes, bytes]], transport: asyncio.Transport) -> HTTPScope:
    # Without a token that stands in the path; the application names the path in its answers.
    path, query = resolve(reader.url)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": reader.parser.get_http_version(),
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "scheme": "http",
        "method": reader.parser.get_method().decode("ascii"),
        "root_path": "",
        "path": path.decode("utf-8", "replace"),
        "raw_path": quote_from_bytes(path).encode(),
        "query_string": query,
        "headers": headers,
        "state": {},
    }
