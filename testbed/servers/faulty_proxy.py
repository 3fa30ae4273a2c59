"""An HTTP proxy between Forebay and OpenSearch that a test makes misbehave, in one way after another."""

import asyncio
import contextlib
import io
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import aiohttp
from aiohttp import web

from testbed.servers.ports import HOST, free_ports

T = TypeVar("T")

CALL_TIMEOUT_S = 30.0
POLL_S = 0.05
ACCEPT_ROUNDS = 3
"""Rounds of the loop until an accepted connection is known to the runner: its task, its transport, its handler."""
BODY_BYTES_MAX = 200 * 1024 * 1024
FORWARDED = ("Content-Type", "Content-Encoding", "Accept-Encoding", "Authorization")
# With no time to linger a close sends RST, as a crashed peer or a firewall does, and not FIN.
NO_LINGER = struct.pack("ii", 1, 0)


class Answer(NamedTuple):
    """An answer of OpenSearch, or one that the proxy made up."""

    status: int
    body: bytes
    content_type: str = "application/json"


class ProxiedRequest:
    """One request that the proxy has read whole and not answered yet."""

    def __init__(self, request: web.Request, body: bytes, proxy: "FaultyProxy") -> None:
        self._request = request
        self._proxy = proxy
        self.body = body

    @property
    def is_bulk(self) -> bool:
        return self._request.path.endswith("/_bulk")

    def interfere(self) -> None:
        """Count a request that does not get the answer of OpenSearch.

        To be called when the answer is ready: a request that its client has given up meanwhile has shown nothing.
        """
        self._proxy.interfered += 1

    async def forward(self, body: bytes | None = None) -> Answer:
        """Ask OpenSearch, with another body if one is given."""
        return await self._proxy.ask(self._request, self.body if body is None else body)

    async def wait_switched(self) -> None:
        """Wait until the proxy is told to behave otherwise."""
        await self._proxy.switched.wait()

    def reset(self) -> web.StreamResponse:
        """Cut the connection."""
        cut(self._request.transport)
        return web.Response()

    def answer(self, answer: Answer) -> web.StreamResponse:
        return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type})

    async def answer_half(self, answer: Answer) -> web.StreamResponse:
        """Announce the whole answer, send a half of it, and cut the connection."""
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(self._request)
        await response.write(answer.body[: len(answer.body) // 2])
        # Else the cut would overtake the bytes that are still in the buffer.
        await asyncio.sleep(0.01)
        cut(self._request.transport)
        return response


Behaviour: TypeAlias = Callable[[ProxiedRequest], Awaitable[web.StreamResponse]]


async def pass_on(request: ProxiedRequest) -> web.StreamResponse:
    """Forward the request and its answer, as a proxy should."""
    try:
        return request.answer(await request.forward())
    except (aiohttp.ClientError, OSError):
        return request.reset()


class FaultyProxy:
    """A proxy on loopback, in a thread of its own; its port stays the same while it refuses connections and after.

    Attributes:
        interfered: the number of requests that did not get OpenSearch's own answer.
        switched: set when the behaviour changes, so that nobody waits on in the old one.
    """

    def __init__(self, upstream_url: str) -> None:
        self.upstream_url = upstream_url
        self.interfered = 0
        self._port = free_ports(1)[0]
        self._behaviour: Behaviour = pass_on
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def behave(self, behaviour: Behaviour) -> None:
        """Answer like this from now on; requests that wait in the old behaviour go on."""
        self._run(self._switch(behaviour))

    def refuse(self) -> None:
        """Take no connections and cut those that there are."""
        self._run(self._stop_listening())

    def accept(self) -> None:
        """Take connections again."""
        self._run(self._listen())

    async def ask(self, request: web.Request, body: bytes) -> Answer:
        """Pass a request on to OpenSearch."""
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        url = self.upstream_url + request.path_qs
        # As a file: aiohttp warns of large bodies that are bytes.
        async with self._session.request(request.method, url, data=io.BytesIO(body), headers=headers) as response:
            return Answer(response.status, await response.read(), response.headers.get("Content-Type", ""))

    async def _open(self) -> None:
        self.switched = asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(
            auto_decompress=False, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        )
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A request that waits in a behaviour is cancelled when its client has gone.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()

    async def _close(self) -> None:
        self.switched.set()
        await self._stop_listening()
        # First: the runner forgets connections that are still being accepted while it cleans up, and on a busy machine
        # that takes its time. A connection that is cut ends its task.
        async with asyncio.timeout(CALL_TIMEOUT_S / 2):
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                self._cut_all()
                await asyncio.wait(others, timeout=POLL_S)
        await self._runner.cleanup()
        await self._session.close()
        # The transports close in the next round of the loop (aiohttp's documentation, "Graceful Shutdown").
        await asyncio.sleep(0)

    async def _switch(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.switched.set()
        self.switched = asyncio.Event()

    async def _listen(self) -> None:
        self._refusing = False
        self._listener = socket.create_server((HOST, self._port))
        self._site = web.SockSite(self._runner, self._listener)
        await self._site.start()

    async def _stop_listening(self) -> None:
        self._refusing = True
        if self._site in self._runner.sites:
            # asyncio leaks a connection that it has accepted if its server closes before the transport is made.
            self._loop.remove_reader(self._listener)
            for _ in range(ACCEPT_ROUNDS):
                await asyncio.sleep(0)
            await self._site.stop()
        self._cut_all()

    def _cut_all(self) -> None:
        for connection in self._runner.server.connections if self._runner.server else []:
            cut(connection.transport)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._refusing:  # over a connection that was being accepted when that ended
            cut(request.transport)
        body = await request.read()
        return await self._behaviour(ProxiedRequest(request, body, self))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)


def cut(transport: asyncio.BaseTransport | None) -> None:
    """End a connection with a reset."""
    if isinstance(transport, asyncio.Transport) and not transport.is_closing():
        connection = transport.get_extra_info("socket")
        # The peer may have been faster.
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        transport.abort()
