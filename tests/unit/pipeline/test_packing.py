"""Submissions share rows, in their order, and no row is larger than a bulk."""

from __future__ import annotations

import itertools

from forebay.model import Entry
from forebay.pipeline.group import Group
from forebay.pipeline.packing import GroupLimits, pack
from unit.pipeline.fakes import Inbox, make_entries, make_entry

LIMITS = GroupLimits(events_max=10, bytes_max=1000)


def pack_from_seven(submissions: list[Inbox]) -> tuple[list[Group], list[tuple[int, int]]]:
    groups, spans = pack(submissions, LIMITS, itertools.count(7).__next__)
    assert [submission for submission, _, _ in spans] == submissions
    return groups, [(first, last) for _, first, last in spans]


def all_entries(groups: list[Group]) -> list[Entry]:
    for group in groups:
        assert group.entry_bytes == sum(map(len, group.entries))
        assert group.open == len(group.entries)
    return [entry for group in groups for entry in group.entries]


def test_nothing_makes_no_row() -> None:
    assert pack_from_seven([]) == ([], [])


def test_submissions_share_a_row() -> None:
    submissions = [Inbox(make_entries(3, prefix)) for prefix in "abc"]

    groups, spans = pack_from_seven(submissions)

    assert [group.row_id for group in groups] == [7]
    assert all_entries(groups) == [entry for submission in submissions for entry in submission.entries]
    assert spans == [(0, 0)] * 3


def test_a_submission_that_does_not_fit_begins_a_row_and_stays_whole() -> None:
    groups, spans = pack_from_seven([Inbox(make_entries(6, "a")), Inbox(make_entries(5, "b"))])

    assert [group.row_id for group in groups] == [7, 8]
    assert [len(group.entries) for group in groups] == [6, 5]
    assert spans == [(0, 0), (1, 1)]


def test_bytes_begin_a_row_too() -> None:
    groups, spans = pack_from_seven([Inbox(make_entries(6, "a", 100)), Inbox(make_entries(5, "b", 100))])

    assert [group.entry_bytes for group in groups] == [600, 500]
    assert spans == [(0, 0), (1, 1)]


def test_a_row_is_filled_exactly_to_its_limits() -> None:
    groups, _ = pack_from_seven([Inbox(make_entries(4, "a")), Inbox(make_entries(6, "b"))])
    assert [len(group.entries) for group in groups] == [10]

    groups, _ = pack_from_seven([Inbox(make_entries(4, "a", 100)), Inbox(make_entries(6, "b", 100))])
    assert [group.entry_bytes for group in groups] == [1000]


def test_a_large_submission_is_split_into_rows() -> None:
    submissions = [Inbox(make_entries(4, "a")), Inbox(make_entries(25, "b")), Inbox(make_entries(1, "c"))]

    groups, spans = pack_from_seven(submissions)

    assert [group.row_id for group in groups] == [7, 8, 9]
    assert [len(group.entries) for group in groups] == [10, 10, 10]
    assert all_entries(groups) == [entry for submission in submissions for entry in submission.entries]
    assert spans == [(0, 0), (0, 2), (2, 2)]


def test_a_submission_of_many_bytes_is_split_into_rows() -> None:
    groups, spans = pack_from_seven([Inbox(make_entries(9, size=300))])

    assert [len(group.entries) for group in groups] == [3, 3, 3]
    assert spans == [(0, 2)]


def test_a_giant_event_has_a_row_of_its_own() -> None:
    submission = Inbox([make_entry("before", 100), make_entry("giant", 5000), make_entry("after", 100)])

    groups, spans = pack_from_seven([submission])

    assert [group.entry_bytes for group in groups] == [100, 5000, 100]
    assert spans == [(0, 2)]
