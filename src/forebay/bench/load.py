"""The load: clients that send events one after the other over loopback, in a process of their own."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

from forebay.clock import now_ms

CONNECTIONS = 64
PATIENCE_S = 10.0
"""How long the last answers are waited for."""

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Load(Struct):
    """A load.

    Attributes:
        batch_events: the events of a batch; 0 for single events.
    """

    port: int
    token: str
    seconds: float
    batch_events: int


class Tally(Struct):
    """The answers to a load.

    Attributes:
        latencies_s: the time of each good answer.
        refusal: the first other answer, empty if there was none.
    """

    answered: int = 0
    refused: int = 0
    latencies_s: list[float] = msgspec.field(default_factory=list)
    refusal: str = ""


def run(load: Load) -> Tally:
    """Send the load until its time is over; return the answers."""
    return uvloop.run(_run(load))


async def _run(load: Load) -> Tally:
    loop = asyncio.get_running_loop()
    tally = Tally()
    ends_at = time.perf_counter() + load.seconds
    clients = [_Client(load, tally, ends_at) for _ in range(CONNECTIONS)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", load.port)  # type: ignore[misc]
    await asyncio.wait([client.ended for client in clients], timeout=load.seconds + PATIENCE_S)
    return tally


class _Client(asyncio.Protocol):
    """One connection: it sends the next request when the answer to the last one is there."""

    def __init__(self, load: Load, tally: Tally, ends_at: float) -> None:
        self._is_batch = load.batch_events > 0
        self._events = max(1, load.batch_events)
        self._tally = tally
        self._ends_at = ends_at
        self._received = b""
        self._sent_at = 0.0
        self._head = (
            f"POST /events{'/batch' if self._is_batch else ''} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {load.token}\r\nContent-Type: application/json\r\n"
            "User-Agent: forebay-bench\r\ndevice-uuid: 0193e5a0-0000-7000-8000-000000000000\r\n"
            "app-version: 1.0.0\r\nos-version: 1.0\r\nContent-Length: "
        ).encode()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        # uvloop's transport has the methods of asyncio's and not its class.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer."""
        self._received = self._received + data if self._received else data
        head, end, body = self._received.partition(_HEAD_END)
        if not end or len(body) < int(head.partition(_LENGTH)[2].partition(b"\r\n")[0]):
            return
        now = time.perf_counter()
        if head.startswith(b"HTTP/1.1 200"):
            self._tally.answered += self._events
            self._tally.latencies_s.append(now - self._sent_at)
        else:
            self._tally.refused += self._events
            self._tally.refusal = self._tally.refusal or body.decode("utf-8", "replace")
        self._received = b""
        if now < self._ends_at:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        del exc
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        body = b",".join([_make_event() for _ in range(self._events)])
        if self._is_batch:
            body = b"[%b]" % body
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))


_EVENT = (
    json.dumps(
        {
            "log_id": "LOG_ID",
            "page": "product",
            "event": "click",
            "label": "Add to basket",
            "target": "product-1000000",
            "section": "recommendations",
            "param": {"product_id": 1_000_000, "price": 1_990, "currency": "KRW", "position": 3, "logged_in": True},
        },
        separators=(",", ":"),
    )
    .encode()
    .replace(b"LOG_ID", b"%08x-%04x-7%03x-8%03x-%012x")
)


def _make_event() -> bytes:
    """Return an event with a `log_id` of its own, with the time in it as UUIDv7 has it."""
    time_ms, random = now_ms(), secrets.randbits(72)
    return _EVENT % (time_ms >> 16, time_ms & 0xFFFF, random >> 60, random >> 48 & 0xFFF, random & 0xFFFF_FFFF_FFFF)
