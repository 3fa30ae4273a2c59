"""A stand-in for OpenSearch that takes bulks, and keeps nothing."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import httptools

ITEM = b'{"create":{"status":201}},'
INFO = json.dumps(
    {"name": "stand-in", "cluster_name": "bench", "version": {"distribution": "opensearch", "number": "3.4.0"}}
).encode()
ACKNOWLEDGED = b'{"acknowledged":true}'


class StandIn(asyncio.Protocol):
    """One connection to the stand-in; httptools calls the `on_…` methods."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._newlines = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answers."""
        # uvloop's transport has the methods of asyncio's and not its class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse the input."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url = b""
        self._newlines = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """Count lines."""
        self._newlines += body.count(b"\n")

    def on_message_complete(self) -> None:
        """Answer."""
        path = self._url.partition(b"?")[0]
        body = ACKNOWLEDGED
        if path.endswith(b"/_bulk"):
            # Each event is an action line and a document. Only the parts that our sink asks for are in the answer.
            body = b'{"errors":false,"items":[%b]}' % (ITEM * (self._newlines // 2))[:-1]
        elif path == b"/":
            body = INFO
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head if self._parser.get_method() == b"HEAD" else head + body)
