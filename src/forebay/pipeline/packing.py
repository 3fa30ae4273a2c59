"""Packing: which submissions share a row of the spool. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from forebay.errors import SpoolUnavailable
from forebay.model import Admission, Entry, entry_index
from forebay.pipeline.group import Group, divide_by_index


class Submission(Protocol):
    """Events of one request, and whoever waits for word of them."""

    entries: list[Entry]
    entry_bytes: int

    def admitted(self, admission: Admission) -> None:
        """Hear that they are safe."""

    def refused(self, error: SpoolUnavailable) -> None:
        """Hear that nothing of them was stored."""


Span: TypeAlias = tuple[Submission, Sequence[int]]
"""A submission, and the numbers of the groups that it went into."""


class GroupLimits(NamedTuple):
    """The most that one row takes: what one bulk takes, so that a row can always be loaded into an empty channel."""

    events_max: int
    bytes_max: int


def pack(
    submissions: Iterable[Submission], limits: GroupLimits, new_id: Callable[[], int]
) -> tuple[list[Group], list[Span]]:
    """Fill groups with the events of submissions, in their order, up to the limits of a row and of one index each."""
    groups: list[Group] = []
    spans: list[Span] = []
    last = -1
    for submission in submissions:
        entries, entry_bytes = submission.entries, submission.entry_bytes
        if groups and groups[last].has_room(entries, entry_bytes, *limits):
            groups[last].extend(entries, entry_bytes)
            spans.append((submission, (last,)))
            continue
        numbers: list[int] = []
        for part in divide_by_index(entries):
            numbers += _fill(groups, part, limits, new_id)
        last = numbers[-1]
        spans.append((submission, numbers))
    return groups, spans


def _fill(
    groups: list[Group], entries: Sequence[Entry], limits: GroupLimits, new_id: Callable[[], int]
) -> Sequence[int]:
    """Put events of one index into the newest group of it, or into new ones; return their numbers."""
    entry_bytes = sum(map(len, entries))
    index = entry_index(entries[0])
    number = next((number for number in reversed(range(len(groups))) if groups[number].index == index), None)
    if number is not None and groups[number].has_room(entries, entry_bytes, *limits):
        groups[number].extend(entries, entry_bytes)
        return (number,)
    first = len(groups)
    if len(entries) > limits.events_max or entry_bytes > limits.bytes_max:
        for entry in entries:
            if len(groups) == first or not groups[-1].has_room((entry,), len(entry), *limits):
                groups.append(Group(entry, new_id()))
            groups[-1].extend((entry,), len(entry))
        return range(first, len(groups))
    groups.append(Group(entries[0], new_id()))
    groups[-1].extend(entries, entry_bytes)
    return (first,)
