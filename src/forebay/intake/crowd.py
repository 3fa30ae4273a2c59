"""All connections together: how many there may be, and how many bytes of their requests are in hand.

Each connection has limits of its own (`refusing.py`); thousands that keep to theirs could still take the whole memory
or every file descriptor. So where there is no room, the one that does least with its place gives way: of connections
the one that has been idle longest, of requests the one whose client has kept it waiting longest. Clients that send at
once what they have to say are served meanwhile.
"""

from __future__ import annotations

import time
from typing import Protocol

import structlog

from forebay.errors import Rejection
from forebay.telemetry.counters import Counters, Crowding

log = structlog.get_logger("forebay.intake")

CROWDED_RETRY_AFTER_S = 2
WARNING_INTERVAL_S = 60.0


class Holder(Protocol):
    """What has bytes in hand: a request, or a connection with what is not read or not sent yet."""

    held_bytes: int


class Occupant(Holder, Protocol):
    """A connection that may have to give way."""

    def leave(self) -> None:
        """Close, being idle."""

    def give_way(self) -> None:
        """Give up what a slow client keeps in hand."""


class Crowd:
    """What all connections of this process take up together. Belongs to the event loop.

    Attributes:
        connections_max: how many connections there may be.
        idle: connections without a request, the one that has been so longest first.
        slow: connections that have bytes in hand and wait for their client, the longest first.
    """

    def __init__(self, connections_max: int, in_hand_bytes_max: int, counters: Counters) -> None:
        self.connections_max = connections_max
        self.idle: dict[Occupant, None] = {}
        self.slow: dict[Occupant, None] = {}
        self._in_hand_bytes_max = in_hand_bytes_max
        self._in_hand_bytes = 0
        self._counters = counters
        self._warned_at: dict[Crowding, float] = {}

    def enter(self, connections: int) -> bool:
        """Say whether there is room for the newest of so many connections, making it if that can be done."""
        if connections <= self.connections_max:
            return True
        if self.idle:
            self._count(Crowding.IDLE_CONNECTION)
            oldest = next(iter(self.idle))
            del self.idle[oldest]
            oldest.leave()
            return True
        self._count(Crowding.NEW_CONNECTION)
        return False

    def weigh(self, holder: Holder, held_bytes: int) -> None:
        """Take note of how many bytes somebody has in hand now."""
        self._in_hand_bytes += held_bytes - holder.held_bytes
        holder.held_bytes = held_bytes

    def has_room(self) -> bool:
        """Say whether what is in hand is within the limit, making slow clients give way as far as that helps."""
        while self._in_hand_bytes > self._in_hand_bytes_max and self.slow:
            self._count(Crowding.SLOW_REQUEST)
            oldest = next(iter(self.slow))
            del self.slow[oldest]
            oldest.give_way()
        return self._in_hand_bytes <= self._in_hand_bytes_max

    def refuse(self) -> Rejection:
        """Return the answer to a request for which there is no room, and count it."""
        self._count(Crowding.NEW_REQUEST)
        return crowded("too many bytes of requests are in hand")

    def _count(self, crowding: Crowding) -> None:
        self._counters.crowded[crowding] += 1
        now = time.monotonic()
        # A crowd must not fill the log.
        if now - self._warned_at.get(crowding, -WARNING_INTERVAL_S) >= WARNING_INTERVAL_S:
            self._warned_at[crowding] = now
            log.warning(
                "crowded",
                gave_way=crowding.value,
                connections_max=self.connections_max,
                in_hand_bytes=self._in_hand_bytes,
                in_hand_bytes_max=self._in_hand_bytes_max,
            )


def crowded(detail: str) -> Rejection:
    """Return the refusal of what may be sent again, unchanged, in a moment."""
    return Rejection(503, detail, headers=(("Retry-After", str(CROWDED_RETRY_AFTER_S)),))
