"""The stand-in for OpenSearch."""

import asyncio
from typing import Any

from forebay.bench.sink import StandIn
from forebay.model import DELIVERED
from forebay.sinks.opensearch.answers import read_answer


class Written(asyncio.Transport):
    """A transport that keeps its output."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: Any) -> None:
        self.data += data


def ask(request: bytes) -> bytes:
    transport, stand_in = Written(), StandIn()
    stand_in.connection_made(transport)
    stand_in.data_received(request[:20])
    stand_in.data_received(request[20:])
    head, _, body = transport.data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return body


def test_every_event_of_a_bulk_is_delivered() -> None:
    bulk = b'{"create":{"_index":"i","_id":"1"}}\n{"page":"/"}\n' * 3
    head = b"POST /_bulk?filter_path=errors HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(bulk)
    assert list(read_answer(200, ask(head + bulk), 3)) == [DELIVERED] * 3


def test_it_looks_like_opensearch() -> None:
    assert b'"distribution": "opensearch"' in ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert ask(b"HEAD /_index_template/events HTTP/1.1\r\nHost: h\r\n\r\n") == b""
