"""The least that a Python server can do for a request: httptools reads it, and it answers 200.

It takes what any collector has to take (the address, each header line, the body) and does nothing with it. So it is the
limit of Python's fastest parser and event loop, and not a collector.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import cast

import httptools
import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n" + b'{"status":"created"}'


class Connection(asyncio.Protocol):
    """One connection; httptools calls the `on_…` methods."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answers."""
        # uvloop's transport has the methods of asyncio's and not its class.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass the bytes to the parser."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Forget the previous request."""
        self.url, self.headers, self.body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        """Take the address."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line."""
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        assert self.transport is not None
        self.transport.write(ANSWER)


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=2048)
    async with server:
        await server.serve_forever()


def main() -> int:
    """Read the port and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
