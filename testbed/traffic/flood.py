"""One client that sends far too much, and others that send little: each on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from testbed.servers.ports import HOST

PIECES_PER_S = 1_000
"""How often the flood writes: some requests at once, as no client that waits for answers could."""

ANSWER_S_MAX = 60
"""A client over its limit is read more slowly, and its requests wait in the system's buffers."""


class Trickle(NamedTuple):
    """The answers to one client that sends little, and the time that each took."""

    statuses: Counter[int]
    latencies_s: list[float]


def make_request(token: str, device: str, body: bytes) -> bytes:
    """Return one request with one event."""
    head = f"POST /events HTTP/1.1\r\nHost: flood\r\nAuthorization: Bearer {token}\r\nDevice-UUID: {device}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def flood(port: int, request: bytes, per_s: int, seconds: float) -> Counter[int]:
    """Send a request so often, without waiting for answers; return how many got which status. 0 sends none.

    It leaves without the answers that are missing in the end.
    """
    reader, writer = await asyncio.open_connection(HOST, port)
    statuses: Counter[int] = Counter()
    reading = asyncio.create_task(_count(reader, statuses))
    sent, piece = 0, max(1, per_s // PIECES_PER_S)
    start = time.monotonic()
    try:
        # A server that reads slowly may hold back what is written until the time is over.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    # However late this process is, the rate is the one that was asked for.
                    while sent < (time.monotonic() - start) * per_s:
                        writer.write(request * piece)
                        sent += piece
                    await writer.drain()
                    await asyncio.sleep(1 / PIECES_PER_S)
    finally:
        reading.cancel()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return statuses


async def trickle(port: int, request: bytes, times_s: Iterable[float]) -> Trickle:
    """Send a request at each of these times, counted from now and rising."""
    reader, writer = await asyncio.open_connection(HOST, port)
    found = Trickle(Counter(), [])
    start = time.monotonic()
    try:
        for time_s in times_s:
            due = start + time_s
            # A timer is late by up to a millisecond, which is not the server's time. A late answer before this is.
            is_early = due > time.monotonic()
            await asyncio.sleep(max(0, due - time.monotonic()))
            sent_at = time.monotonic() if is_early else due
            writer.write(request)
            async with asyncio.timeout(ANSWER_S_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_body_bytes(head))
            found.latencies_s.append(time.monotonic() - sent_at)
            found.statuses[int(head[9:12])] += 1
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return found


async def _count(reader: asyncio.StreamReader, statuses: Counter[int]) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        statuses[int(head[9:12])] += 1
        await reader.readexactly(_body_bytes(head))


def _body_bytes(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
