"""The HTTP server: uvicorn with a start and an end of our own, and a sweep of connections whose time is up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from forebay.intake.connection import Connection

SWEEP_INTERVAL_S = 1.0


class HttpServer(uvicorn.Server):
    """One server; `on_started` is called once connections are taken."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections, then call `on_started`."""
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let a first signal end the server in order and a second one at once.

        uvicorn raises the signal again when it has ended, which would kill the process before the channel is
        delivered.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; at the second signal, at once: events that are not delivered are in the spool."""
        del frame
        if self.should_exit:
            os._exit(128 + sig)
        self.end()

    def end(self) -> None:
        """Take no more connections, finish the requests that have begun, and return from `serve`."""
        self.should_exit = True

    async def sweep(self) -> None:
        """Look every second for connections whose time is up, and close them."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = loop.time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.expire(now)
