"""The records that travel through the pipeline: groups of events, bulks cut from them, and settlements of bulks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from forebay.errors import SpoolUnavailable
from forebay.history import History
from forebay.model import Admission, Entry, Outcome, are_delivered
from forebay.spool.records import StoredGroup, Transaction

UNTRIED = History()

NO_ORIGINALS: Mapping[Entry, Entry] = MappingProxyType({})
"""One for all groups: there may be as many as events, and a dictionary of its own would take 80 bytes of each."""


class Part(Struct, gc=False):
    """The events of a request that go to one index, and their bytes together."""

    index: str
    entries: list[Entry]
    entry_bytes: int


class Submission(Protocol):
    """The events of one request, and whoever waits for an answer to it."""

    @property
    def parts(self) -> Sequence[Part]:
        """The events, at least one, by their index."""

    def admitted(self, admission: Admission) -> None:
        """Hear that the events are safe."""

    def refused(self, error: SpoolUnavailable) -> None:
        """Hear that nothing of them was stored."""


class Group:
    """Events of one index that entered together, until the last of them is settled.

    Attributes:
        index: the index of all of them.
        entries: the events, in order of arrival; a bulk takes slices of them.
        entry_bytes: their bytes together.
        row_id: their row in the spool, or None while they are only in memory (`ack=memory`).
        stored_bytes: the bytes of the row's body on disk.
        history: the deliveries before the group came into memory.
        received_at_ms: when its row was written first, or shortly before; 0 while there is none.
        arrived_at: when it came into the channel (the loop's clock).
        cut: how many of its events bulks have taken.
        open: how many have no outcome yet.
        left: the unsettled events, each with its outcome.
        kept: those that stay in its row, known once it leaves memory.
        is_blocked: whether a bulk with some of its events ended as one that an event may have blocked.
        is_alone: whether it travels in a bulk of its own.
        originals: the events as they came, by the form that is sent, for those that were repaired.
    """

    __slots__ = (
        "arrived_at",
        "cut",
        "entries",
        "entry_bytes",
        "history",
        "index",
        "is_alone",
        "is_blocked",
        "kept",
        "left",
        "open",
        "originals",
        "received_at_ms",
        "row_id",
        "stored_bytes",
    )

    def __init__(self, index: str, row_id: int | None = None, history: History = UNTRIED) -> None:
        self.index = index
        self.entries: list[Entry] = []
        self.entry_bytes = 0
        self.row_id = row_id
        self.stored_bytes = 0
        self.history = history
        self.received_at_ms = 0
        self.arrived_at = 0.0
        self.cut = 0
        self.open = 0
        self.left: Sequence[tuple[Entry, Outcome]] = ()
        self.kept: Sequence[Entry] = ()
        self.is_blocked = False
        self.is_alone = False
        self.originals: Mapping[Entry, Entry] = NO_ORIGINALS

    @classmethod
    def from_row(cls, stored: StoredGroup, *, is_alone: bool = False) -> Group:
        """Return the group of a row of the spool."""
        group = cls(stored.index_name, stored.id, stored.history)
        group.extend(stored.entries, sum(map(len, stored.entries)))
        group.stored_bytes = stored.stored_bytes
        group.originals = stored.originals
        group.received_at_ms = stored.received_at_ms
        group.is_alone = is_alone
        return group

    def take_in(self, part: Part, events_max: int, bytes_max: int) -> bool:
        """Add events that arrived if they are of its index, and together not too much; return whether it was done."""
        if (
            part.index != self.index
            or self.entry_bytes + part.entry_bytes > bytes_max
            or len(self.entries) + len(part.entries) > events_max
        ):
            return False
        self.extend(part.entries, part.entry_bytes)
        return True

    def extend(self, entries: Sequence[Entry], entry_bytes: int) -> None:
        """Add events of its index that arrived, while no bulk has reached the end of the group."""
        self.entries.extend(entries)
        self.entry_bytes += entry_bytes
        self.open += len(entries)

    def record(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        """Note the outcomes of some of its events."""
        self.open -= len(entries)
        if not are_delivered(outcomes):
            left = [pair for pair in zip(entries, outcomes, strict=True) if not pair[1].settled]
            self.left = [*self.left, *left]
            self.is_blocked = self.is_blocked or any(outcome.is_blocking for outcome in outcomes)

    def original(self, entry: Entry) -> Entry:
        """Return an event as it came."""
        return self.originals.get(entry, entry)

    @property
    def row_ids(self) -> list[int]:
        """Its row, or nothing."""
        return [] if self.row_id is None else [self.row_id]


class Bulk(NamedTuple):
    """The events of one delivery, and the slice of each group that they came from."""

    entries: list[Entry]
    slices: list[tuple[Group, Sequence[Entry]]]

    def pair(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[Group, Sequence[Entry], Sequence[Outcome]]]:
        """Go through the slices, each with the outcomes of its events."""
        start = 0
        for group, entries in self.slices:
            yield group, entries, outcomes[start : start + len(entries)]
            start += len(entries)


class Settlement(NamedTuple):
    """What the spool writes of outcomes, which may be nothing, and the groups that leave memory with that."""

    transaction: Transaction
    leaving: list[Group]

    @property
    def is_parting(self) -> bool:
        """Whether it puts several rows in the place of one."""
        return bool(self.transaction.inserts) and any(group.row_id is not None for group in self.leaving)

    def without_parting(self) -> Settlement:
        """Return one that keeps the same events in the row that there is, with the history of that."""
        (group,) = self.leaving
        group.kept = [*group.kept, *(entry for row in self.transaction.inserts for entry in row.entries)]
        changes = Transaction()
        if len(group.kept) < len(group.entries):
            changes.shrinks += [(row_id, group.kept, group.history) for row_id in group.row_ids]
        return Settlement(changes, [group])


def divide(settlements: Iterable[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
    """Divide settlements into those that only change rows that are there, and those that need new ones."""
    settlements = list(settlements)
    old = [settlement for settlement in settlements if not settlement.transaction.inserts]
    return old, [settlement for settlement in settlements if settlement.transaction.inserts]


class GroupLimits(NamedTuple):
    """The most that one row takes: as much as one bulk, so that a row can always be loaded into an empty channel."""

    events_max: int
    bytes_max: int


PackedSubmission: TypeAlias = tuple[Submission, Sequence[int]]
"""A submission, and the numbers of the groups that it went into."""


def pack(
    submissions: Iterable[Submission], limits: GroupLimits, new_id: Callable[[], int]
) -> tuple[list[Group], list[PackedSubmission]]:
    """Fill groups with the events of submissions, in their order, up to the limits of a row and of one index each."""
    events_max, bytes_max = limits
    groups: list[Group] = []
    packed: list[PackedSubmission] = []
    newest: dict[str, int] = {}  # by index: the number of its newest group
    for submission in submissions:
        numbers: list[int] = []
        for part in submission.parts:
            number = newest.get(part.index)
            if number is not None and groups[number].take_in(part, events_max, bytes_max):
                numbers.append(number)
            else:
                numbers += _begin(groups, part, limits, new_id)
                newest[part.index] = numbers[-1]
        packed.append((submission, numbers))
    return groups, packed


def _begin(groups: list[Group], part: Part, limits: GroupLimits, new_id: Callable[[], int]) -> Sequence[int]:
    """Put events into new groups; return their numbers."""
    first = len(groups)
    groups.append(Group(part.index, new_id()))
    if groups[-1].take_in(part, *limits):
        return (first,)
    for entry in part.entries:
        alone = Part(part.index, [entry], len(entry))
        if not groups[-1].take_in(alone, *limits):
            if groups[-1].entries:
                groups.append(Group(part.index, new_id()))
            groups[-1].extend(alone.entries, alone.entry_bytes)
    return range(first, len(groups))
