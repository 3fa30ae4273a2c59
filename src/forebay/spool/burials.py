"""Burials: pending events of which a person wants dead letters, though nothing proves that they are at fault.

A command leaves one as a request in every spool. It stays there until its owner has done it: to go over the same events
once more finds those that are left.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from forebay.model import Entry
from forebay.spool.records import Wanted
from forebay.spool.writing import dead_address

WORD = "bury "
"""What the name of such a request begins with; the statements know it too."""


class Burial(Struct, frozen=True, omit_defaults=True):
    """Which pending events are meant: those that fit all that is given.

    Attributes:
        received_before_ms: received earlier, in milliseconds since 1970; nothing that comes after the command is meant.
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
        return WORD + _encode(self).decode()

    @classmethod
    def read(cls, request: str) -> Burial:
        """Return the burial that a request asks for."""
        return _decode(request.removeprefix(WORD))

    @property
    def wanted(self) -> Wanted:
        """The groups that may hold events that are meant."""
        return Wanted(index_name=self.index_name, is_refused=self.refused)

    def fits(self, entry: Entry) -> bool:
        """Say whether an event of a group that fits is meant."""
        return not self.log_ids or dead_address(entry).log_id in self.log_ids

    def parameters(self) -> dict[str, Any]:
        """Return what the statements take."""
        return {
            "received_before_ms": self.received_before_ms,
            "index_name": self.index_name,
            "refused": int(self.refused),
        }


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Burial).decode
