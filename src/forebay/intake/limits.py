"""Limits of one request, of a connection's time, and of all connections together.

Thousands of connections within their own limits could still use the whole memory or every file descriptor. So if there
is no room, the connection that has been idle longest is closed, and the request whose client has been slow longest is
dropped. Clients that send at once are served meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple, Protocol

import structlog

from forebay.errors import Rejection
from forebay.telemetry.counters import Counters, Overload

log = structlog.get_logger("forebay.intake")

OVERLOAD_RETRY_AFTER_S = 2
WARNING_INTERVAL_S = 60.0

COPIES_BYTES_MAX = 32 * 1024 * 1024
"""Most bytes of the copies of one thing in all documents of a request. A client sends it once for any number of events,
and a large one with many small events would take gigabytes here."""

BLANKS = b" \t"
"""The parser leaves those behind a header's value, which are no part of it (RFC 9110, section 5.5)."""


class RequestLimits(NamedTuple):
    """Limits of one request."""

    header_bytes_max: int
    body_bytes_max: int
    batch_events_max: int


class ConnectionTimeouts(NamedTuple):
    """How long a request may take to arrive, and how long a connection may be idle."""

    request_timeout_s: float
    keep_alive_s: float


class UnreadAnswers:
    """The answers that a client leaves unread: more than the transport takes, or those before the end.

    Attributes:
        ends_at: when that has lasted too long; None while they are read.
    """

    def __init__(self, transport: asyncio.Transport, timeout_s: float) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._unsent_bytes = 0
        self.ends_at: float | None = None

    def has_lasted(self, now: float) -> bool:
        """Return whether the client has read nothing of them for too long; what is added meanwhile does not count."""
        before, self._unsent_bytes = self._unsent_bytes, self._transport.get_write_buffer_size()
        if self.ends_at is None or self._unsent_bytes < before:
            self.ends_at = now + self._timeout_s
        return now >= self.ends_at

    def end(self) -> None:
        """Take note that the client has read them."""
        self.ends_at = None


class MemoryUser(Protocol):
    """A request, or a connection with bytes that are not parsed or not sent yet."""

    used_bytes: int


class LimitedConnection(MemoryUser, Protocol):
    """A connection that may have to make room for others."""

    def close_idle(self) -> None:
        """Close the idle connection, to make room for another."""

    def drop_slow_request(self) -> None:
        """Free the memory that a slow client takes, by a refusal or by closing."""


class ConnectionLimits:
    """Limits the number of connections of this process, and the bytes of all their requests.

    Attributes:
        connections_max: most connections.
        bytes_max: most bytes of requests.
        used_bytes: their bytes now; whoever uses some adds them, and takes them away again.
        idle: connections without a request, the one that has been idle longest first.
        slow: connections that use memory and wait for their client, the one that has waited longest first.
        paused: how many connections are not read for a while, as they flood.
    """

    def __init__(self, connections_max: int, bytes_max: int, counters: Counters) -> None:
        self.connections_max = connections_max
        self.idle: dict[LimitedConnection, None] = {}
        self.slow: dict[LimitedConnection, None] = {}
        self.bytes_max = bytes_max
        self.used_bytes = 0
        self.paused = 0
        self._counters = counters
        self._warned_at: dict[Overload, float] = {}

    def make_room(self, connections: int) -> None:
        """Make room for the newest of so many connections: close the one that has been idle longest.

        Raises:
            Rejection: 503 if there are too many and none is idle.
        """
        if connections <= self.connections_max:
            return
        if not self.idle:
            self._count(Overload.NEW_CONNECTION)
            raise overloaded("there are too many connections")
        self._count(Overload.IDLE_CONNECTION)
        oldest = next(iter(self.idle))
        del self.idle[oldest]
        oldest.close_idle()

    @property
    def exceeded(self) -> bool:
        """Whether requests use more bytes than they may."""
        return self.used_bytes > self.bytes_max

    def set_used_bytes(self, user: MemoryUser, used_bytes: int) -> None:
        """Record how many bytes a request or a connection uses now."""
        self.used_bytes += used_bytes - user.used_bytes
        user.used_bytes = used_bytes

    def find_room(self) -> bool:
        """Drop the requests of the slowest clients until the limit is met or none is left; return whether it is met."""
        while self.slow and self.exceeded:
            self._count(Overload.SLOW_REQUEST)
            oldest = next(iter(self.slow))
            del self.slow[oldest]
            oldest.drop_slow_request()
        return not self.exceeded

    def reject_request(self) -> Rejection:
        """Count a request for which there is no memory, and return its answer."""
        self._count(Overload.NEW_REQUEST)
        return overloaded("too many bytes of requests are in memory")

    def _count(self, overload: Overload) -> None:
        self._counters.crowded[overload] += 1
        now = time.monotonic()
        # An overload must not fill the log.
        if now - self._warned_at.get(overload, -WARNING_INTERVAL_S) >= WARNING_INTERVAL_S:
            self._warned_at[overload] = now
            log.warning(
                "crowded",
                gave_way=overload.value,
                connections_max=self.connections_max,
                in_hand_bytes=self.used_bytes,
                in_hand_bytes_max=self.bytes_max,
            )


def overloaded(detail: str) -> Rejection:
    """Return the refusal of a request that may be sent again, unchanged, in a moment."""
    return Rejection(503, detail, headers=(("Retry-After", str(OVERLOAD_RETRY_AFTER_S)),))


def check_copies(copies_bytes: int, copied: str) -> None:
    """Check the bytes of all copies that the events of a request have of something; `copied` is its name.

    Raises:
        Rejection: 413, they are too many.
    """
    if copies_bytes > COPIES_BYTES_MAX:
        detail = f"the copies of {copied}, one for each event, exceed {COPIES_BYTES_MAX} bytes"
        raise Rejection(413, detail)


def read_length(value: bytes) -> int:
    """Return the number of a `Content-Length` that the parser has accepted.

    It may have any number of zeros in front, and Python refuses to convert more than 4,300 digits (RFC 9110, section
    8.6, asks for care here).
    """
    return int(value.strip().lstrip(b"0") or b"0")
