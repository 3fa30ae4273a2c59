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

SLOW_S = 2.0
"""How long the end waits for clients that are slow to send or to read. All that they sent whole is answered before."""


class HttpServer(uvicorn.Server):
    """One server; `on_started` is called once connections are taken."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections, then call `on_started`."""
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests in hand."""
        giving_up = asyncio.get_running_loop().call_later(SLOW_S, self._give_up_slow)
        try:
            await super().shutdown(sockets)
        finally:
            giving_up.cancel()

    def _give_up_slow(self) -> None:
        for connection in self._connections():
            connection.stop_waiting()

    def _connections(self) -> list[Connection]:
        return [each for each in self.server_state.connections if isinstance(each, Connection)]

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
            for connection in self._connections():
                connection.expire(now)
