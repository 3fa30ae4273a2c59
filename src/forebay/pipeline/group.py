"""A group: events that entered together, tracked until the last of them is settled."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.model import DELIVERED, Entry, History, Outcome
from forebay.pipeline.poison import blocks

UNTRIED = History()


class Group:
    """Events on their way through memory.

    Attributes:
        entries: the events, in order of arrival; a bulk takes slices of them.
        entry_bytes: their bytes together.
        row_id: their row in the spool, or None while they are only in memory (`ack=memory`).
        stored_bytes: what the row takes on disk.
        history: what became of deliveries before this stay in memory.
        arrived_at: when it came into the channel (the loop's clock).
        taken: how many of them bulks have taken.
        open: how many have no outcome yet.
        rest: those whose outcome was to try again.
        blocked: whether a bulk with some of its events ended as one that an event may have blocked.
        alone: whether it travels in a bulk of its own.
        on_trial: whether its row has a strike that its history has not, for the case that the process ends meanwhile.
    """

    __slots__ = (
        "alone",
        "arrived_at",
        "blocked",
        "entries",
        "entry_bytes",
        "history",
        "on_trial",
        "open",
        "rest",
        "row_id",
        "stored_bytes",
        "taken",
    )

    def __init__(self, row_id: int | None = None, history: History = UNTRIED) -> None:
        self.entries: list[Entry] = []
        self.entry_bytes = 0
        self.row_id = row_id
        self.stored_bytes = 0
        self.history = history
        self.arrived_at = 0.0
        self.taken = 0
        self.open = 0
        self.rest: Sequence[Entry] = ()
        self.blocked = False
        self.alone = False
        self.on_trial = False

    def extend(self, entries: Sequence[Entry], entry_bytes: int) -> None:
        """Add events that arrived, while no bulk has reached the end of the group."""
        self.entries.extend(entries)
        self.entry_bytes += entry_bytes
        self.open += len(entries)

    def record(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> bool:
        """Note what became of some of its events; return whether that was the last of them."""
        self.open -= len(entries)
        # The usual bulk is delivered whole, and counting is faster than looking at each outcome.
        if outcomes.count(DELIVERED) != len(outcomes):
            left = [entry for entry, outcome in zip(entries, outcomes, strict=True) if not outcome.settled]
            self.rest = [*self.rest, *left]
            self.blocked = self.blocked or any(map(blocks, outcomes))
        return self.open == 0
