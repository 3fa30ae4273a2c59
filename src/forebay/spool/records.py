"""The values that the store takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field

from forebay.history import DeadLetter, History
from forebay.model import Entry


class NewGroup(NamedTuple):
    """Events to be stored in one row; the owner gives its number.

    Attributes:
        received_at_ms: the time at which they were received, 0 for now.
    """

    id: int
    entries: Sequence[Entry]
    history: History = History()
    received_at_ms: int = 0


class Transaction(Struct, gc=False):
    """The changes of one commit, all of them or none.

    Attributes:
        inserts: groups to store.
        deletes: groups, every event of which is settled.
        shrinks: groups with their unsettled events, and their new history.
        attempts: groups of which a delivery settled nothing, with their new history.
        dead: events that the sink will never take.
    """

    inserts: list[NewGroup] = field(default_factory=list)
    deletes: list[int] = field(default_factory=list)
    shrinks: list[tuple[int, Sequence[Entry], History]] = field(default_factory=list)
    attempts: list[tuple[int, History]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def absorb(self, other: Transaction) -> None:
        """Add the contents of another transaction."""
        self.inserts += other.inserts
        self.deletes += other.deletes
        self.shrinks += other.shrinks
        self.attempts += other.attempts
        self.dead += other.dead

    def __bool__(self) -> bool:
        return bool(self.inserts or self.deletes or self.shrinks or self.attempts or self.dead)


class StoredGroup(NamedTuple):
    """A group that was read.

    Attributes:
        index_name: the index of its events.
        entries: the events in the form in which they are sent.
        originals: the events as they came, by the form in which they are sent, if the two differ.
    """

    id: int
    index_name: str
    entries: list[Entry]
    history: History
    stored_bytes: int
    received_at_ms: int
    originals: Mapping[Entry, Entry] = MappingProxyType({})


class Totals(NamedTuple):
    """The contents of a spool, counted.

    Attributes:
        stored_bytes: size of the bodies of the groups.
        dead_bytes: size of the entries and reasons of the dead letters.
    """

    groups: int
    events: int
    stored_bytes: int
    dead_letters: int
    dead_bytes: int
