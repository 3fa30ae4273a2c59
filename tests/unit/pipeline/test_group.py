"""Submissions share rows, in their order; no row is larger than a bulk, or of more than one index."""

from __future__ import annotations

import itertools

from forebay.model import Entry, entry_index
from forebay.pipeline.group import Group, GroupLimits, pack
from unit.pipeline.fakes import Inbox, make_entries, make_entry

LIMITS = GroupLimits(events_max=10, bytes_max=1000)
MONTHS = ("2026-11", "2026-12", "2026-11", "2026-12")


def pack_from_seven(submissions: list[Inbox]) -> tuple[list[Group], list[list[int]]]:
    groups, spans = pack(submissions, LIMITS, itertools.count(7).__next__)
    assert [submission for submission, _ in spans] == submissions
    return groups, [list(numbers) for _, numbers in spans]


def all_entries(groups: list[Group]) -> list[Entry]:
    for group in groups:
        assert group.entry_bytes == sum(map(len, group.entries))
        assert group.open == len(group.entries)
        assert {entry_index(entry) for entry in group.entries} == {group.index}
    return [entry for group in groups for entry in group.entries]


def test_nothing_makes_no_row() -> None:
    assert pack_from_seven([]) == ([], [])


def test_submissions_share_a_row() -> None:
    submissions = [Inbox(make_entries(3, prefix)) for prefix in "abc"]

    groups, spans = pack_from_seven(submissions)

    assert [group.row_id for group in groups] == [7]
    assert all_entries(groups) == [entry for submission in submissions for entry in submission.entries]
    assert spans == [[0]] * 3


def test_a_submission_that_does_not_fit_begins_a_row_and_stays_whole() -> None:
    groups, spans = pack_from_seven([Inbox(make_entries(6, "a")), Inbox(make_entries(5, "b"))])

    assert [group.row_id for group in groups] == [7, 8]
    assert [len(group.entries) for group in groups] == [6, 5]
    assert spans == [[0], [1]]


def test_bytes_begin_a_row_too() -> None:
    groups, spans = pack_from_seven([Inbox(make_entries(6, "a", 100)), Inbox(make_entries(5, "b", 100))])

    assert [group.entry_bytes for group in groups] == [600, 500]
    assert spans == [[0], [1]]


def test_a_row_is_filled_exactly_to_its_limits() -> None:
    groups, _ = pack_from_seven([Inbox(make_entries(4, "a")), Inbox(make_entries(6, "b"))])
    assert [len(group.entries) for group in groups] == [10]

    groups, _ = pack_from_seven([Inbox(make_entries(4, "a", 100)), Inbox(make_entries(6, "b", 100))])
    assert [group.entry_bytes for group in groups] == [1000]


def test_a_large_submission_is_split_into_rows() -> None:
    submissions = [Inbox(make_entries(4, "a")), Inbox(make_entries(25, "b")), Inbox(make_entries(1, "c"))]

    groups, spans = pack_from_seven(submissions)

    assert [group.row_id for group in groups] == [7, 8, 9, 10]
    assert [len(group.entries) for group in groups] == [4, 10, 10, 6]
    assert all_entries(groups) == [entry for submission in submissions for entry in submission.entries]
    assert spans == [[0], [1, 2, 3], [3]]


def test_a_submission_of_many_bytes_is_split_into_rows() -> None:
    groups, spans = pack_from_seven([Inbox(make_entries(9, size=300))])

    assert [len(group.entries) for group in groups] == [3, 3, 3]
    assert spans == [[0, 1, 2]]


def test_a_giant_event_has_a_row_of_its_own() -> None:
    submission = Inbox([make_entry("before", 100), make_entry("giant", 5000), make_entry("after", 100)])

    groups, spans = pack_from_seven([submission])

    assert [group.entry_bytes for group in groups] == [100, 5000, 100]
    assert spans == [[0, 1, 2]]


def test_events_of_two_indices_go_into_two_rows() -> None:
    pairs = zip(make_entries(3, "n"), make_entries(3, "d", month="2026-12"), strict=True)
    mixed = [entry for pair in pairs for entry in pair]

    groups, spans = pack_from_seven([Inbox(mixed)])

    assert [group.row_id for group in groups] == [7, 8]
    assert [group.entries for group in groups] == [mixed[::2], mixed[1::2]]
    assert all_entries(groups) == [*mixed[::2], *mixed[1::2]]
    assert spans == [[0, 1]]


def test_submissions_share_the_newest_row_of_their_index() -> None:
    submissions = [Inbox(make_entries(2, prefix, month=month)) for prefix, month in zip("abcd", MONTHS, strict=True)]

    groups, spans = pack_from_seven(submissions)

    assert [group.entries for group in groups] == [
        [*submissions[0].entries, *submissions[2].entries],
        [*submissions[1].entries, *submissions[3].entries],
    ]
    assert spans == [[0], [1], [0], [1]]
