"""Decompression bombs on a real server, a thousand at once: all refused, memory bounded, others served."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

import pytest

from forebay.sinks.local import LocalSink
from forebay.sinks.port import Query
from testbed.servers.forebay import ForebayServer
from testbed.servers.ports import HOST
from testbed.servers.process_usage import peak_bytes
from testbed.traffic.packing import MIB, bomb
from testbed.traffic.requests import LIVE, Client

BOMBS = 1_000
BODY_BYTES_MAX = 2 * MIB
IN_HAND_BYTES_MAX = 16 * MIB
SETTINGS = {
    "FOREBAY_BODY_BYTES_MAX": str(BODY_BYTES_MAX),
    "FOREBAY_IN_HAND_BYTES_MAX": str(IN_HAND_BYTES_MAX),
    "FOREBAY_BULK_INTERVAL_S": "0.1",
}

WINDOW_BYTES = 16 * MIB
"""The largest window, brotli's; zlib has 32 KB, and zstd 8 MB."""

CONNECTION_BYTES = 20_000
"""What a connection takes with its request, beside the bytes of the body: buffers, parser, task."""

GROWTH_BYTES_MAX = IN_HAND_BYTES_MAX + 3 * BODY_BYTES_MAX + WINDOW_BYTES + BOMBS * CONNECTION_BYTES
"""The requests in hand; one body that is unpacked, in its pieces and as a whole, and the one before it, which is being
refused; one window; the connections."""

ANSWER_S_MAX = 240


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForebayServer]:
    with ForebayServer(tmp_path, SETTINGS) as server:
        server.start()
        yield server


@lru_cache
def make_request(token: str, coding: str, mib: int) -> bytes:
    body = bomb(coding, mib * MIB)
    head = f"POST /events/batch HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Encoding: {coding}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def connected(server: ForebayServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(opened: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> tuple[int, bytes]:
    """Return the status of the answer, and its body."""
    reader, writer = opened
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def throw(server: ForebayServer, request: bytes, left: Counter[str]) -> int:
    """Send a bomb on a connection of its own; return the status of the answer."""
    async with connected(server) as opened:
        status, _ = await ask(opened, request)
        left["bombs"] -= 1
        return status


async def send_steadily(server: ForebayServer, left: Counter[str]) -> Counter[int]:
    """Send one event after the other while there are bombs; return how many got which status."""
    event = b'{"page":"/home","event":"click"}'
    head = f"POST /events HTTP/1.1\r\nAuthorization: Bearer {server.token('steady')}\r\n"
    request = f"{head}Content-Length: {len(event)}\r\n\r\n".encode() + event
    statuses: Counter[int] = Counter()
    async with connected(server) as opened:
        while left["bombs"]:
            status, _ = await ask(opened, request)
            # Only answers while bombs are in work count.
            statuses[status] += left["bombs"] > 0
    return statuses


@pytest.mark.parametrize(
    ("coding", "mib"), [("gzip", 10), ("gzip", 1024), ("deflate", 1024), ("br", 1024), ("zstd", 10), ("zstd", 1024)]
)
async def test_a_thousand_bombs_at_once_are_refused_and_others_are_served(
    server: ForebayServer, coding: str, mib: int
) -> None:
    request = make_request(server.token("attacker"), coding, mib)
    before = peak_bytes(server.pid)
    left = Counter(bombs=BOMBS)
    async with asyncio.timeout(ANSWER_S_MAX):
        steady, *statuses = await asyncio.gather(
            send_steadily(server, left), *(throw(server, request, left) for _ in range(BOMBS))
        )
    assert isinstance(steady, Counter)
    assert steady.keys() == {200}
    assert steady[200] > 0
    # Only the largest do not all find room.
    assert set(statuses) <= {413, 503}
    assert 413 in statuses
    assert peak_bytes(server.pid) - before <= GROWTH_BYTES_MAX
    assert Client(server).post("/events").status == 200


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_body_of_very_many_empty_members_is_refused_and_others_are_served(
    server: ForebayServer, coding: str
) -> None:
    empty = gzip.compress(b"", mtime=0) if coding == "gzip" else b"\x50\x2a\x4d\x18\0\0\0\0"
    body = empty * (BODY_BYTES_MAX // len(empty))
    head = f"POST /events HTTP/1.1\r\nAuthorization: Bearer {server.token()}\r\nContent-Encoding: {coding}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    left = Counter(bombs=20)
    async with asyncio.timeout(ANSWER_S_MAX):
        steady, *statuses = await asyncio.gather(
            send_steadily(server, left), *(throw(server, request, left) for _ in range(20))
        )
    assert isinstance(steady, Counter)
    assert steady.keys() == {200}
    assert set(statuses) <= {413, 503}
    assert 413 in statuses


@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_a_server_that_ends_while_bombs_wait_answers_all_of_them(server: ForebayServer, coding: str) -> None:
    request = make_request(server.token("attacker"), coding, 10)
    left = Counter(bombs=200)
    async with asyncio.timeout(ANSWER_S_MAX):
        thrown = [asyncio.ensure_future(throw(server, request, left)) for _ in range(200)]
        while left["bombs"] == 200:
            await asyncio.sleep(0.001)
        exit_code = await asyncio.to_thread(server.stop)
        statuses = await asyncio.gather(*thrown, return_exceptions=True)
    assert exit_code == 0
    # Those for which there was no time may come again, and those whose connection was not taken any more.
    assert {status for status in statuses if isinstance(status, int)} <= {413, 503}


async def test_a_large_honest_batch_is_taken_each_event_once(server: ForebayServer, tmp_path: Path) -> None:
    events = 10_000
    batch = json.dumps([{"log_id": f"{number}", "page": "/home", "event": "click"} for number in range(events)])
    body = gzip.compress(batch.encode())
    assert len(body) < len(batch) < BODY_BYTES_MAX
    head = f"POST /events/batch HTTP/1.1\r\nAuthorization: Bearer {server.token()}\r\nContent-Encoding: gzip\r\n"
    async with asyncio.timeout(ANSWER_S_MAX), connected(server) as opened:
        for _ in range(2):
            status, answer = await ask(opened, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert (status, json.loads(answer)["accepted"]) == (200, events)
        assert (await ask(opened, LIVE))[0] == 200
    server.stop()
    documents = await LocalSink(tmp_path / "spool-events.db", "local").search(Query({}, limit=2 * events))
    assert sorted(int(json.loads(bytes(document))["log_id"]) for document in documents) == [*range(events)]
