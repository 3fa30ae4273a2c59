"""Requests of commands to the owner, which alone moves events. A command leaves one in every spool.

A burial asks for dead letters of pending events, though nothing proves that they are at fault. It stays in the spool
until its owner has done it: doing it once more finds the events that are left.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from msgspec import Struct

from forebay.model import Entry
from forebay.spool.codec import dead_address
from forebay.spool.loading import Wanted

BURY = "bury "
"""The beginning of the name of a burial; the statements know it too."""


class Request(enum.StrEnum):
    """A request without details."""

    RETRY = "retry"  # redeliver pending events now
    REPLAY = "replay"  # move the dead letters back that are requested for replay


class Burial(Struct, frozen=True, omit_defaults=True):
    """Which pending events are to become dead letters: those that fit all that is given.

    Attributes:
        received_before_ms: received earlier, in milliseconds since 1970; an event that comes later is not meant.
        log_ids: one of them.
        index_name: this one.
        refused: refused by the sink at least once.
    """

    received_before_ms: int
    log_ids: frozenset[str] = frozenset()
    index_name: str | None = None
    refused: bool = False

    @property
    def request(self) -> str:
        """The name of the request."""
        return BURY + _encode(self).decode()

    @classmethod
    def read(cls, request: str) -> Burial:
        """Return the burial that a request asks for."""
        return _decode(request.removeprefix(BURY))

    @property
    def wanted(self) -> Wanted:
        """The groups that may contain events that are meant."""
        return Wanted(index_name=self.index_name, is_refused=self.refused)

    def fits(self, entry: Entry) -> bool:
        """Return whether an event of a group that fits is meant."""
        return not self.log_ids or dead_address(entry).log_id in self.log_ids

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the statements."""
        return {
            "received_before_ms": self.received_before_ms,
            "index_name": self.index_name,
            "refused": int(self.refused),
        }


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Burial).decode
