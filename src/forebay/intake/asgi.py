"""A request that the ASGI application answers: every request that is not for an event address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes

from uvicorn._types import HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from forebay.intake.answers import Turn
from forebay.intake.formats.registry import resolve
from forebay.intake.limits import BLANKS
from forebay.intake.reader import RequestReader

log = logging.getLogger("uvicorn.error")


class AsgiRequest(Turn, eq=False, kw_only=True):
    """Runs the ASGI application for one request, by uvicorn's own means; in its turn the application answers itself.

    Attributes:
        app: the application.
        cycle: uvicorn's part of it. The body in it is bounded by flow control: the connection is not read while it is
            large.
        tasks: the server's.
    """

    app: Any
    cycle: RequestResponseCycle
    tasks: set[asyncio.Task[None]]

    def begin(self) -> None:
        """Run the application, whether or not the body has arrived."""
        task = asyncio.get_running_loop().create_task(self.cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def receive_body(self, data: bytes) -> None:
        """Add a piece of the body, unless the answer is there before it."""
        if self.cycle.response_complete:
            return
        self.cycle.body += data
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.cycle.flow.pause_reading()
        self.cycle.message_event.set()

    def end_body(self) -> None:
        """Tell the application that the body is complete."""
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def disconnect(self) -> None:
        """Tell the application that the client is gone."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def end_connection(self) -> None:
        """Let the connection end behind it."""
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self.cycle.transport.close()


def make_asgi_request(
    reader: RequestReader,
    flow: FlowControl,
    transport: asyncio.Transport,
    server_state: ServerState,
    app: Any,
    write_due: Callable[[], None],
) -> AsgiRequest:
    """Return the request whose head the reader has read; `write_due` goes on behind it, once it is answered."""
    headers = [(name.lower(), value.rstrip(BLANKS)) for name, value in reader.headers]
    version = reader.parser.get_http_version()

    def finish() -> None:
        request.response = b""
        write_due()

    cycle = RequestResponseCycle(
        scope=_scope(reader, headers, transport),
        transport=transport,
        flow=flow,
        logger=log,
        access_logger=log,
        access_log=False,
        default_headers=server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers),
        keep_alive=version != "1.0" and reader.parser.should_keep_alive(),
        on_response=finish,
    )
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
