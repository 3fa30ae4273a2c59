"""A stand-in for OpenSearch that takes bulk requests, counts their documents and keeps none.

It shares a core with the load generator, so it does as little as it can: it counts newlines instead of reading JSON.
Only with `--keep-ids` it keeps the `_id` of every document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import zlib
from typing import cast
from urllib.parse import parse_qs

import httptools
import uvloop

ID = re.compile(rb'"_id": ?"([^"]+)"')
ITEM = b'{"create":{"status":201}},'
INFO = json.dumps(
    {
        "name": "counting-sink",
        "cluster_name": "bench",
        "cluster_uuid": "Y291bnRpbmctc2luay0wMQ",
        "version": {
            "distribution": "opensearch",
            "number": "3.3.0",
            "build_type": "tar",
            "minimum_wire_compatibility_version": "2.19.0",
            "minimum_index_compatibility_version": "2.0.0",
        },
        "tagline": "The OpenSearch Project: https://opensearch.org/",
    }
).encode()
BLOCKED_ITEM = (
    b'{"create":{"status":403,"error":{"type":"cluster_block_exception",'
    b'"reason":"index blocked by: [FORBIDDEN/8/index write (api)];"}}},'
)
ACKNOWLEDGED = b'{"acknowledged":true}'
REFUSED = b'{"error":{"type":"unavailable","reason":"the sink refuses on request"},"status":503}'
NOT_COUNTABLE = b'{"error":{"type":"not_countable","reason":"only plain and gzip bodies are counted"},"status":415}'


class Tally:
    """The count of all connections of one sink."""

    def __init__(self, *, refuse: bool, block: str, keep_ids: bool) -> None:
        self.refuse = refuse
        self.blocked = b'{"create":{"_index":"%s",' % block.encode() if block else b""
        self.keep_ids = keep_ids
        self.ids: set[bytes] = set()
        self.documents = 0
        self.bulks = 0

    def report(self) -> bytes:
        """Return the count, in the form of OpenSearch's `_count`."""
        return json.dumps({"count": self.documents, "bulks": self.bulks}).encode()


class SinkProtocol(asyncio.Protocol):
    """One connection; httptools calls the `on_…` methods."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        self.url = b""
        self.encoding = b""
        self.newlines = 0
        self.kept = bytearray()
        self.inflate: zlib._Decompress | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answers."""
        # uvloop's transport has the methods of asyncio's and not its class.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass the bytes to the parser; a peer that does not speak HTTP is cut off."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            assert self.transport is not None
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Forget the previous request of this connection."""
        self.url = b""
        self.encoding = b""
        self.newlines = 0
        self.kept.clear()
        self.inflate = None

    def on_url(self, url: bytes) -> None:
        """Collect the URL, which may come in pieces."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the compression of the body; no other header changes the answer."""
        if name.lower() == b"content-encoding":
            self.encoding = value.lower()
            if self.encoding == b"gzip":
                self.inflate = zlib.decompressobj(wbits=31)

    def on_body(self, body: bytes) -> None:
        """Count lines as they arrive; a body is kept only if its ids or a blocked index are asked for."""
        if self.inflate is not None:
            body = self.inflate.decompress(body)
        self.newlines += body.count(b"\n")
        if self.tally.blocked or self.tally.keep_ids:
            self.kept += body

    def on_message_complete(self) -> None:
        """Answer the request."""
        path, _, query = self.url.partition(b"?")
        if path.endswith(b"/_bulk"):
            status, body = self.bulk(query)
        elif path == b"/":
            status, body = b"200 OK", INFO
        elif path.endswith(b"/_count"):
            status, body = b"200 OK", self.tally.report()
        elif path == b"/_ids":
            status, body = b"200 OK", b"\n".join(self.tally.ids)
        else:
            status, body = b"200 OK", ACKNOWLEDGED
        self.answer(status, body)

    def bulk(self, query: bytes) -> tuple[bytes, bytes]:
        """Count the documents of a bulk request: each is an action line and a source line."""
        if self.tally.refuse:
            return b"503 Service Unavailable", REFUSED
        if self.encoding not in {b"", b"identity", b"gzip"}:
            return b"415 Unsupported Media Type", NOT_COUNTABLE
        self.tally.bulks += 1
        if self.tally.blocked and self.tally.blocked in self.kept:
            return b"200 OK", self.bulk_in_part()
        documents = self.newlines // 2
        self.tally.documents += documents
        self.tally.ids.update(ID.findall(self.kept))
        return b"200 OK", bulk_answer(documents, query)

    def bulk_in_part(self) -> bytes:
        """Refuse the documents of the blocked index, and take those of others."""
        items = [
            BLOCKED_ITEM if action.startswith(self.tally.blocked) else ITEM for action in self.kept.split(b"\n")[:-1:2]
        ]
        self.tally.documents += items.count(ITEM)
        return b'{"errors":true,"items":[%s]}' % b"".join(items)[:-1]

    def answer(self, status: bytes, body: bytes) -> None:
        """Write one response; HEAD gets the headers alone."""
        assert self.transport is not None
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (status, len(body))
        keep_alive = self.parser.should_keep_alive()
        if not keep_alive:
            head += b"Connection: close\r\n"
        self.transport.write(head + b"\r\n" + (b"" if self.parser.get_method() == b"HEAD" else body))
        if not keep_alive:
            self.transport.close()


def bulk_answer(documents: int, query: bytes) -> bytes:
    """Return an answer that every document was created, with the parts that `filter_path` asks for.

    The items carry the status and nothing else even when a real OpenSearch would say more. That spares a client
    that asks for whole answers the work of reading them.
    """
    wanted = parse_qs(query.decode()).get("filter_path", ["took,errors,items"])[0].split(",")
    parts = [
        b'"%s":%s' % (name, value)
        for name, value in ((b"took", b"1"), (b"errors", b"false"))
        if name.decode() in wanted or "*" in wanted
    ]
    if any(path.split(".")[0] in {"items", "*"} for path in wanted):
        parts.append(b'"items":[%s]' % (ITEM * documents)[:-1])
    return b"{%s}" % b",".join(parts)


async def serve(port: int, tally: Tally) -> None:
    """Answer until the process is ended."""
    server = await asyncio.get_running_loop().create_server(lambda: SinkProtocol(tally), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> int:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--refuse", action="store_true", help="answer 503 to every bulk request")
    parser.add_argument("--block", default="", help="answer 403 to every document of this index")
    parser.add_argument("--keep-ids", action="store_true", help="tell at /_ids the ids of all documents")
    options = parser.parse_args()
    tally = Tally(refuse=options.refuse, block=options.block, keep_ids=options.keep_ids)
    uvloop.run(serve(options.port, tally))
    return 0


if __name__ == "__main__":
    sys.exit(main())
