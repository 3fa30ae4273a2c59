"""A request that the ASGI application answers: every request that is not for an event address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from forebay.intake.reader import RequestReader

log = logging.getLogger("uvicorn.error")


class AsgiRequest(RequestResponseCycle):
    """Runs the ASGI application for one request, by uvicorn's own means.

    Args of the constructor:
        reader: has read the head of the request.
        on_response: called once the answer is written.
    """

    used_bytes = 0
    """Its body is bounded by flow control: the connection is not read while it is large."""

    def __init__(
        self,
        reader: RequestReader,
        flow: FlowControl,
        transport: asyncio.Transport,
        server_state: ServerState,
        on_response: Callable[[], None],
    ) -> None:
        headers = [(name.lower(), value) for name, value in reader.headers]
        super().__init__(
            scope=_scope(reader, headers, transport),
            transport=transport,
            flow=flow,
            logger=log,
            access_logger=log,
            access_log=False,
            default_headers=server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers),
            keep_alive=reader.http_version != "1.0" and reader.keep_alive,
            on_response=on_response,
        )
        self._tasks = server_state.tasks

    def start(self, app: Any) -> None:
        """Run the application, whether or not the body has arrived."""
        task = asyncio.get_running_loop().create_task(self.run_asgi(app))
        task.add_done_callback(self._tasks.discard)
        self._tasks.add(task)

    def receive_body(self, data: bytes) -> None:
        """Add a piece of the body, unless the answer is there before it."""
        if self.response_complete:
            return
        self.body += data
        if len(self.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.message_event.set()

    def end_body(self) -> None:
        """Tell the application that the body is complete."""
        self.more_body = False
        self.message_event.set()

    def disconnect(self) -> None:
        """Tell the application that the client is gone."""
        self.disconnected = True
        self.message_event.set()


def _scope(reader: RequestReader, headers: list[tuple[bytes, bytes]], transport: asyncio.Transport) -> HTTPScope:
    url = httptools.parse_url(reader.url)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": reader.http_version,
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "scheme": "http",
        "method": reader.method.decode("ascii"),
        "root_path": "",
        "path": unquote(url.path.decode("ascii")),
        "raw_path": url.path,
        "query_string": url.query or b"",
        "headers": headers,
        "state": {},
    }
