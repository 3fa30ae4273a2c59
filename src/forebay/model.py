"""Event, document, entry and outcome: the records that travel through Forebay.

An *entry* is one event on its way from intake to sink: two lines of bytes, the bulk action and the document, each ended
by a newline. It is made once, at intake; the channel, the spool and the sink pass the same bytes on, so nothing is
encoded twice and a redelivery sends exactly the bytes of the first delivery.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, SupportsIndex, TypeAlias, overload

import msgspec
from msgspec import Meta, Raw, Struct

Entry: TypeAlias = bytes

LOG_ID_BYTES_MAX = 512
"""OpenSearch refuses an `_id` of more than 512 bytes (`MapperService`/`IndexRequest.validate`)."""

PARAM_DEPTH_MAX = 32
"""How deep `param`, or a field that Forebay does not know, may nest."""

Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Instant: TypeAlias = datetime | int | float


NO_PARAM = Raw()


class Event(Struct, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """An event as a client sends it. `timestamp` and `sent_at` are RFC 3339 or milliseconds since 1970."""

    page: Text
    event: Text
    log_id: Text | None = None
    label: str | None = None
    target: str | None = None
    section: str | None = None
    param: Raw = NO_PARAM
    timestamp: Instant | None = None
    sent_at: Instant | None = None


class ExtendedEvent(Event, kw_only=True):
    """An event with fields that Forebay does not know."""

    extra: dict[str, Raw]


class Address(Struct, gc=False, frozen=True):
    """The address of a document in the sink: `_index` and `_id`, worked out once, at intake."""

    index: str = msgspec.field(name="_index")
    log_id: str = msgspec.field(name="_id")


class _Action(Struct, gc=False):
    create: Address


NEWLINE = ord("\n")
_INDEX_LEAD = b'{"create":{"_index":"'

_encode = msgspec.json.Encoder().encode
_decode_action = msgspec.json.Decoder(_Action).decode


def on_one_line(json: bytes) -> bytes:
    """Return the same JSON without newlines.

    Only `param` and unknown fields may have some, as they keep the client's own white space. In a bulk a newline would
    end the document early and shift every document behind it.
    """
    return msgspec.json.format(json, indent=-1) if NEWLINE in json else json


def entry_address(entry: Entry) -> Address:
    """Return the address of an entry."""
    return _decode_action(entry[: entry.index(b"\n")]).create


def entry_index(entry: Entry) -> str:
    """Return the index of an entry that intake made, from its first bytes; empty if nobody can read them."""
    if not entry.startswith(_INDEX_LEAD):
        return ""
    return entry[len(_INDEX_LEAD) : entry.find(b'"', len(_INDEX_LEAD))].decode("utf-8", "replace")


def entry_document(entry: Entry) -> bytes:
    """Return the document's JSON, without its newline."""
    return entry[entry.index(b"\n") + 1 : -1]


def entry_without_id(entry: Entry) -> Entry:
    """Return the entry for a sink that gives documents an `_id` of its own; every delivery then makes a new one."""
    return b'{"create":{"_index":%b}}\n%b\n' % (_encode(entry_address(entry).index), entry_document(entry))


def join_entries(entries: Sequence[Entry]) -> bytes:
    """Return entries as the body of a bulk request, which is also how the spool keeps them."""
    return b"".join(entries)


def split_entries(body: bytes) -> list[Entry]:
    """Return the entries of a body that `join_entries` made.

    Raises:
        ValueError: the body does not end with a whole entry.
    """
    lines = body.split(b"\n")
    if lines.pop() or len(lines) % 2:
        raise ValueError(f"{len(lines)} whole lines and an open one are not a sequence of entries")
    return [b"%b\n%b\n" % pair for pair in zip(lines[::2], lines[1::2], strict=True)]


class Verdict(enum.Enum):
    """The end of one event in one bulk."""

    DELIVERED = "delivered"  # taken: it is there, and was not before
    DUPLICATE = "duplicate"  # it was there already: as good as delivered
    DROPPED = "dropped"  # the sink's own processing dropped it, as it was configured to
    RETRY = "retry"  # not this time, or nobody knows
    PAUSE = "pause"  # not until an operator changes something at the sink
    REFUSED = "refused"  # the sink did not take it; whose fault that is shows in how others fare
    DEAD = "dead"  # never


class Outcome(Struct, frozen=True, gc=False):
    """The verdict on one event in one bulk, and the reason if it was not taken.

    Attributes:
        advice: a remedy for an operator.
        whole: the sink refused, or did not answer, the bulk as a whole: it says nothing about this event in particular.
        status: the HTTP status of a refusal.
        is_busy: whether it is to be tried again because the sink has too much to do.
        is_too_large: whether the sink may take fewer bytes at once.
        is_unexpected: whether the sink gave an answer that nobody expects of it.
        is_own: whether a refusal is the event's own fault, as others of its index were taken, now or before.
        is_struck: whether it then counts against the event.
    """

    verdict: Verdict
    error_type: str = ""
    reason: str = ""
    advice: str = ""
    whole: bool = False
    status: int = 0
    is_busy: bool = False
    is_too_large: bool = False
    is_unexpected: bool = False
    is_own: bool = False
    is_struck: bool = False

    @property
    def settled(self) -> bool:
        """Whether the event needs no further delivery."""
        return self.verdict not in _UNSETTLED

    @property
    def is_blocking(self) -> bool:
        """Whether a bulk that one of its events blocks ends so: as a whole, without a word about single events."""
        return self.whole and self.verdict is Verdict.RETRY and not self.is_busy


_UNSETTLED = frozenset({Verdict.RETRY, Verdict.PAUSE, Verdict.REFUSED})


DELIVERED = Outcome(Verdict.DELIVERED)
DUPLICATE = Outcome(Verdict.DUPLICATE)
DROPPED = Outcome(Verdict.DROPPED)


class SameOutcome(Sequence[Outcome]):
    """The outcomes of so many events that all have the same one, kept once: those of a usual bulk."""

    __slots__ = ("_events", "_outcome")

    def __init__(self, outcome: Outcome, events: int) -> None:
        self._outcome = outcome
        self._events = events

    def __len__(self) -> int:
        return self._events

    def __iter__(self) -> Iterator[Outcome]:
        return itertools.repeat(self._outcome, self._events)

    @overload
    def __getitem__(self, place: SupportsIndex) -> Outcome: ...

    @overload
    def __getitem__(self, place: slice) -> SameOutcome: ...

    def __getitem__(self, place: SupportsIndex | slice) -> Outcome | SameOutcome:
        """Return the outcome at a place, or those of a slice, by the rules of any sequence."""
        places = range(self._events)[place]
        return self._outcome if isinstance(places, int) else SameOutcome(self._outcome, len(places))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list

    def count(self, value: object) -> int:
        """Return how many outcomes are equal to one, without going through them."""
        return self._events if value == self._outcome else 0


def are_delivered(outcomes: Sequence[Outcome]) -> bool:
    """Return whether every event of a bulk was delivered; quick, as nearly every bulk is asked for it."""
    return outcomes.count(DELIVERED) == len(outcomes)


class Ack(enum.StrEnum):
    """When the client gets its answer."""

    DISK = "disk"  # after the event's commit has been synced
    MEMORY = "memory"  # as soon as it is in the channel


class Admission(enum.StrEnum):
    """The queue in which an accepted event waits for its delivery."""

    CREATED = "created"  # in the channel
    PENDING = "pending"  # only in the spool: the channel had no room


# Looked up once: Python 3.11 takes longer to find the member of an enum than to call a function.
CREATED, PENDING = Admission
MEMORY = Ack.MEMORY
