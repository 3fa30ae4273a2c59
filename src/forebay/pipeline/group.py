"""A group: events of one index that entered together, tracked until the last of them is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forebay.model import DELIVERED, Entry, History, Outcome, entry_index, index_prefix
from forebay.pipeline.poison import blocks

UNTRIED = History()


class Group:
    """Events on their way through memory.

    Attributes:
        index: where all of them belong.
        entries: the events, in order of arrival; a bulk takes slices of them.
        entry_bytes: their bytes together.
        row_id: their row in the spool, or None while they are only in memory (`ack=memory`).
        stored_bytes: what the row takes on disk.
        history: what became of deliveries before this stay in memory.
        received_at_ms: when its row was written first, or shortly before; 0 while there is none.
        arrived_at: when it came into the channel (the loop's clock).
        taken: how many of them bulks have taken.
        open: how many have no outcome yet.
        left: those that are not settled, each with its outcome.
        rest: those of them that stay in its row, known when none is open.
        blocked: whether a bulk with some of its events ended as one that an event may have blocked.
        alone: whether it travels in a bulk of its own.
        originals: the events as they came, by what is sent of them, where that is something else.
    """

    __slots__ = (
        "_prefix",
        "alone",
        "arrived_at",
        "blocked",
        "entries",
        "entry_bytes",
        "history",
        "index",
        "left",
        "open",
        "originals",
        "received_at_ms",
        "rest",
        "row_id",
        "stored_bytes",
        "taken",
    )

    def __init__(self, first: Entry, row_id: int | None = None, history: History = UNTRIED) -> None:
        """Make an empty group for events of the index of `first`."""
        self.index = entry_index(first)
        self._prefix = index_prefix(self.index)
        self.entries: list[Entry] = []
        self.entry_bytes = 0
        self.row_id = row_id
        self.stored_bytes = 0
        self.history = history
        self.received_at_ms = 0
        self.arrived_at = 0.0
        self.taken = 0
        self.open = 0
        self.left: list[tuple[Entry, Outcome]] = []
        self.rest: Sequence[Entry] = ()
        self.blocked = False
        self.alone = False
        self.originals: Mapping[Entry, Entry] = {}

    def has_room(self, entries: Sequence[Entry], entry_bytes: int, events_max: int, bytes_max: int) -> bool:
        """Return whether these events may join it: all of its index, and not too much together."""
        events = len(entries)
        if self.entry_bytes + entry_bytes > bytes_max or len(self.entries) + events > events_max:
            return False
        # Asked for each single event that comes.
        prefix = self._prefix
        # A list is quicker than `all` with a generator.
        return entries[0].startswith(prefix) and not [entry for entry in entries if not entry.startswith(prefix)]

    def extend(self, entries: Sequence[Entry], entry_bytes: int) -> None:
        """Add events of its index that arrived, while no bulk has reached the end of the group."""
        self.entries.extend(entries)
        self.entry_bytes += entry_bytes
        self.open += len(entries)

    def record(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> bool:
        """Note what became of some of its events; return whether that was the last of them."""
        self.open -= len(entries)
        # The usual bulk is delivered whole, and counting is faster than looking at each outcome.
        if outcomes.count(DELIVERED) != len(outcomes):
            self.left += [pair for pair in zip(entries, outcomes, strict=True) if not pair[1].settled]
            self.blocked = self.blocked or any(map(blocks, outcomes))
        return self.open == 0

    def original(self, entry: Entry) -> Entry:
        """Return an event as it came."""
        return self.originals.get(entry, entry)


def divide_by_index(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    """Return events as they are if they are of one index, else those of each index."""
    prefix = index_prefix(entry_index(entries[0]))
    if all(entry.startswith(prefix) for entry in entries):
        return [entries]
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        parts.setdefault(entry_index(entry), []).append(entry)
    return list(parts.values())
