"""What goes into the spool and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field

from forebay.errors import SpoolUnavailable
from forebay.model import DeadLetter, Entry, History


class NewGroup(NamedTuple):
    """Events to keep together under a number that the owner gives.

    Attributes:
        received_at_ms: when they were received, 0 if that is now.
    """

    id: int
    entries: Sequence[Entry]
    history: History = History()
    received_at_ms: int = 0


class Transaction(Struct, gc=False):
    """What one commit writes, all of it or nothing.

    Attributes:
        inserts: groups to keep.
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
        """Add what another transaction would write."""
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
        index_name: where in the sink its events belong.
        entries: what is to be sent.
        originals: the events as they came, by what is sent of them, where that is something else.
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


class ExpiredLetter(NamedTuple):
    """A dead letter that is past its retention."""

    id: int
    index_name: str
    log_id: str
    error_type: str
    reason: str
    history: History
    died_at_ms: int
    entry: Entry


class GroupDamaged(SpoolUnavailable):
    """A group cannot be read; it stays in the file for a person to look at."""

    def __init__(self, group_id: int, reason: str) -> None:
        super().__init__(f"group {group_id} cannot be read: {reason}")
        self.group_id = group_id


class Totals(NamedTuple):
    """How much a spool holds.

    Attributes:
        stored_bytes: what the bodies of the groups take.
        dead_bytes: what the entries and reasons of the dead letters take.
    """

    groups: int
    events: int
    stored_bytes: int
    dead_letters: int
    dead_bytes: int
