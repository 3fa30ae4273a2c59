"""Requests of commands to the owner, as only the owner moves events. A command leaves one in every spool.

A burial asks that pending events become dead letters, though nothing proves that they are at fault. It stays in the
spool until its owner has done it: doing it once more finds the rest of the events.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from msgspec import Struct

from forebay.clock import now_ms
from forebay.model import Entry
from forebay.spool.codec import dead_address
from forebay.spool.loading import Wanted

BURY = "bury "
"""The name of a burial begins with this; the statements know it too."""


class Request(enum.StrEnum):
    """A request without details."""

    RETRY = "retry"  # redeliver pending events now
    REPLAY = "replay"  # move the dead letters back that are requested for replay


class Burial(Struct, frozen=True, omit_defaults=True):
    """A request that pending events become dead letters: those that fit every given field.

    Attributes:
        received_before_ms: events that were received before this time, in milliseconds since 1970.
        log_ids: events with one of these.
        index_name: events of this index.
        refused: events that the sink refused at least once.
        also_ahead: also events that are dated later than now, since the clock was ahead when they were received.
    """

    received_before_ms: int
    log_ids: frozenset[str] = frozenset()
    index_name: str | None = None
    refused: bool = False
    also_ahead: bool = False

    @property
    def request(self) -> str:
        """The name of the request."""
        return BURY + _encode(self).decode()

    @classmethod
    def read(cls, request: str) -> Burial:
        """Return the burial of a request."""
        return _decode(request.removeprefix(BURY))

    @property
    def wanted(self) -> Wanted:
        """The groups that may contain events which the burial means."""
        return Wanted(index_name=self.index_name, is_refused=self.refused)

    def includes(self, received_at_ms: int) -> bool:
        """Return whether events that were received at this time are meant, if they fit."""
        return received_at_ms < self.received_before_ms or (self.also_ahead and received_at_ms > now_ms())

    def fits(self, entry: Entry) -> bool:
        """Return whether an event is meant, if its group fits."""
        return not self.log_ids or dead_address(entry).log_id in self.log_ids

    def parameters(self) -> dict[str, Any]:
        """Return the burial as parameters of the statements."""
        return {
            "received_before_ms": self.received_before_ms,
            "index_name": self.index_name,
            "refused": int(self.refused),
            "also_ahead": int(self.also_ahead),
            "now_ms": now_ms(),
        }


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Burial).decode
