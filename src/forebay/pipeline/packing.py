"""Packing: which submissions share a row of the spool. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from forebay.errors import SpoolUnavailable
from forebay.model import Admission, Entry
from forebay.pipeline.group import Group


class Submission(Protocol):
    """Events of one request, and whoever waits for word of them."""

    entries: list[Entry]
    entry_bytes: int

    def admitted(self, admission: Admission) -> None:
        """Hear that they are safe."""

    def refused(self, error: SpoolUnavailable) -> None:
        """Hear that nothing of them was stored."""


Span: TypeAlias = tuple[Submission, int, int]
"""A submission, and which groups it went into: the first and the last of them."""


class GroupLimits(NamedTuple):
    """The most that one row takes: what one bulk takes, so that a row can always be loaded into an empty channel."""

    events_max: int
    bytes_max: int


def pack(
    submissions: Iterable[Submission], limits: GroupLimits, new_id: Callable[[], int]
) -> tuple[list[Group], list[Span]]:
    """Fill groups with the events of submissions, in their order, up to the limits of a row."""
    groups: list[Group] = []
    spans: list[Span] = []
    for submission in submissions:
        first = -1
        for entries, entry_bytes in _portions(submission, limits):
            if not groups or not _fits(groups[-1], len(entries), entry_bytes, limits):
                groups.append(Group(new_id()))
            if first < 0:
                first = len(groups) - 1
            groups[-1].extend(entries, entry_bytes)
        spans.append((submission, first, len(groups) - 1))
    return groups, spans


def _portions(submission: Submission, limits: GroupLimits) -> Sequence[tuple[Sequence[Entry], int]]:
    """Return a submission whole where a row can take it, else event by event."""
    if len(submission.entries) <= limits.events_max and submission.entry_bytes <= limits.bytes_max:
        return ((submission.entries, submission.entry_bytes),)
    return [((entry,), len(entry)) for entry in submission.entries]


def _fits(group: Group, events: int, entry_bytes: int, limits: GroupLimits) -> bool:
    return len(group.entries) + events <= limits.events_max and group.entry_bytes + entry_bytes <= limits.bytes_max
