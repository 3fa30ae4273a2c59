"""A port before OpenSearch that passes every byte on as it is, and can be closed and opened again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, Self

from testbed.servers.faulty_proxy import cut
from testbed.servers.ports import HOST, free_ports

CALL_WITHIN_S = 30.0
CHUNK_BYTES = 256 * 1024


class Relay:
    """A relay of TCP in a thread of its own; its port stays the same while it refuses connections and after.

    A proxy of HTTP would answer in place of OpenSearch, and so could change what the servers of a comparison see.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._port = free_ports(1)[0]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_WITHIN_S)
        self._loop.close()

    @property
    def url(self) -> str:
        """The address that stands for OpenSearch's."""
        return f"http://{HOST}:{self._port}"

    def accept(self) -> None:
        """Take connections."""
        self._run(self._listen())

    def refuse(self) -> None:
        """Take no connections, so that each is refused, and cut those that there are."""
        self._run(self._close())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._begin, HOST, self._port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            cut(writer.transport)
        if self._connections:
            await asyncio.wait(self._connections)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._loop.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._known(writer):
            if self._server is None:  # closed while the connection was being accepted
                return
            try:
                upstream_reader, upstream_writer = await asyncio.open_connection(HOST, self._upstream_port)
            except OSError:
                return
            with self._known(upstream_writer):
                pumps = {
                    asyncio.ensure_future(_pump(reader, upstream_writer)),
                    asyncio.ensure_future(_pump(upstream_reader, writer)),
                }
                _, others = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for other in others:
                    other.cancel()
                await asyncio.wait(pumps)

    @contextlib.contextmanager
    def _known(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            cut(writer.transport)
            self._writers.discard(writer)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_WITHIN_S)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until an end is gone."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
