"""Aside: pending groups that do not go with the others, those of indices on hold and suspects."""

from __future__ import annotations

from collections.abc import Container

from forebay.pipeline.holds import Holds
from forebay.pipeline.suspects import Suspects
from forebay.spool.records import StoredGroup


class Aside:
    """Takes groups out of redelivery, and knows those that need not be read again."""

    def __init__(self, held: Container[int], holds: Holds, suspects: Suspects) -> None:
        self._held = held
        self._suspects = suspects
        self.holds = holds

    def __contains__(self, row_id: object) -> bool:
        """Say whether a group is in memory, or known to be aside; any thread may ask."""
        return row_id in self._held or row_id in self.holds or row_id in self._suspects

    def takes(self, stored: StoredGroup) -> bool:
        """Take a group over if it waits for its index, or is suspect; return whether that is so."""
        return self.holds.keep(stored.id, stored.entries, self._held) or self._suspects.keep(stored)
