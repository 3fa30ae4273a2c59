"""The ledger: which groups are in memory, and how much the spool holds, kept by adding and never by asking the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from forebay.pipeline.group import Group
from forebay.pipeline.settlement import Settlement


class Ledger:
    """What is where. Belongs to the event loop, and changes only with commits that have succeeded.

    Attributes:
        held: groups in memory that have a row, by its number; every other row is pending.
        stored_events: events in the spool, in memory or not.
        stored_bytes: what they take on disk.
    """

    def __init__(self) -> None:
        self.held: dict[int, Group] = {}
        self._held_events = 0
        self.stored_events = 0
        self.stored_bytes = 0

    @property
    def pending_events(self) -> int:
        """How many events are in the spool and not in memory."""
        return self.stored_events - self._held_events

    def store(self, events: int, stored_bytes: int) -> None:
        """Take note of events that are in the spool now."""
        self.stored_events += events
        self.stored_bytes += stored_bytes

    def hold(self, group: Group) -> None:
        """Take note that a group of the spool is in memory."""
        if group.row_id is not None:
            self.held[group.row_id] = group
            self._held_events += len(group.entries)

    def release(self, groups: Iterable[Group]) -> None:
        """Take note that groups left memory with nothing of them settled: their rows are pending as they are."""
        for group in groups:
            if group.row_id is not None and self.held.pop(group.row_id, None) is not None:
                self._held_events -= len(group.entries)

    def settle(self, settlements: Iterable[Settlement], stored_bytes: Mapping[int, int]) -> None:
        """Take note of settlements that are in the spool now, with the stored bytes of each row that they wrote."""
        for settlement in settlements:
            for row in settlement.transaction.inserts:
                self.store(len(row.entries), stored_bytes[row.id])
            for group in settlement.leaving:
                self._release(group, stored_bytes)

    def _release(self, group: Group, stored_bytes: Mapping[int, int]) -> None:
        """Let a group leave memory; what is left of it in its row is pending from now on."""
        if group.row_id is None or self.held.pop(group.row_id, None) is None:
            return
        self._held_events -= len(group.entries)
        self.stored_events -= len(group.entries) - len(group.rest)
        if len(group.rest) < len(group.entries):
            self.stored_bytes += stored_bytes.get(group.row_id, 0) - group.stored_bytes
