"""The records that go into the spool and come out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field

from forebay.errors import SpoolUnavailable
from forebay.model import DeadLetter, Entry, History


class NewGroup(NamedTuple):
    """Events to store in one row, under a number that the owner gives.

    Attributes:
        received_at_ms: when they were received, 0 if that is now.
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
        shrinks: groups with the events that are left of them, and their history then.
        attempts: groups of which a delivery settled nothing, with their history then.
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
    """A group as it was read.

    Attributes:
        index_name: the index of its events.
        entries: the events in the form in which they are sent.
        originals: the events as they came, by the form that is sent, if that is another one.
    """

    id: int
    index_name: str
    entries: list[Entry]
    history: History
    stored_bytes: int
    received_at_ms: int
    originals: Mapping[Entry, Entry] = MappingProxyType({})


class Wanted(NamedTuple):
    """Which groups to read, by their index and the status of their last refusal; every group by default.

    Attributes:
        index_name: groups of this index alone.
        indices_left_out: groups of other indices alone.
        statuses: groups with one of these statuses alone, 0 being that of groups that were never refused.
        is_refused: groups that were refused alone.
    """

    index_name: str | None = None
    indices_left_out: frozenset[str] = frozenset()
    statuses: frozenset[int] | None = None
    is_refused: bool = False

    def includes(self, index_name: str, refused_status: int) -> bool:
        """Return whether groups of an index with such a last refusal are wanted."""
        return (
            self.index_name in (None, index_name)
            and index_name not in self.indices_left_out
            and (self.statuses is None or refused_status in self.statuses)
            and (not self.is_refused or refused_status != 0)
        )


EVERY = Wanted()


class GroupDamaged(SpoolUnavailable):
    """A group cannot be read; it stays in the file for a person to examine."""

    def __init__(self, group_id: int, reason: str) -> None:
        super().__init__(f"group {group_id} cannot be read: {reason}")
        self.group_id = group_id


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
