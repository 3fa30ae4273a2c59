"""What the sink refuses for its index waits, one probe at a time, and nothing else waits with it."""

from __future__ import annotations

from collections.abc import Container

import pytest

from forebay.model import DELIVERED, DUPLICATE, Entry, Outcome
from forebay.pipeline import holds as holds_module
from forebay.pipeline.holds import Holds, HoldState
from unit.pipeline.fakes import DEAD, PAUSE, REFUSED, RETRY, Clock, capture_log, make_entries

NOVEMBER, DECEMBER = "events_test_2026-11", "events_test_2026-12"
NOV, DEC = make_entries(3), make_entries(3, month="2026-12")
NOBODY: Container[int] = ()


class TimedHolds:
    """Holds whose time stands still until it is moved."""

    def __init__(self, delay_s_min: float = 1, delay_s_max: float = 8) -> None:
        self.clock = Clock()
        self.jitters: list[tuple[float, float]] = []
        self.heard: list[str] = []
        self.holds = Holds(delay_s_min, delay_s_max, self._jitter)
        self.holds._loop = self.clock.loop
        self.holds.on_held = lambda: self.heard.append("held")
        self.holds.on_due = lambda: self.heard.append("due")
        self.holds.on_lifted = lambda: self.heard.append("lifted")

    def _jitter(self, least: float, most: float) -> float:
        self.jitters.append((least, most))
        return most

    def learn(self, entries: list[Entry], *outcomes: Outcome) -> None:
        self.holds.learn(entries, outcomes, 1_700_000_000_000)

    def names(self) -> list[str]:
        return [hold.index_name for hold in self.holds.states]


@pytest.fixture
async def timed() -> TimedHolds:
    return TimedHolds()


async def test_at_first_nothing_is_on_hold(timed: TimedHolds) -> None:
    assert not timed.holds
    assert not timed.holds.cover(NOV)
    assert not timed.holds.keep(1, NOV, NOBODY)
    assert timed.holds.states == ()


async def test_a_refusal_of_single_events_puts_their_index_on_hold_and_no_other(timed: TimedHolds) -> None:
    timed.learn([*NOV, *DEC], PAUSE, PAUSE, PAUSE, DELIVERED, DELIVERED, DELIVERED)

    assert timed.holds.cover(NOV)
    assert not timed.holds.cover(DEC)
    assert not timed.holds.cover([*NOV, *DEC]), "what holds others too goes its way"
    assert timed.heard == ["held"]
    assert timed.holds.states == (HoldState(NOVEMBER, 1_700_000_000_000, "cluster_block_exception", "read-only", ""),)


@pytest.mark.parametrize("outcome", [DELIVERED, DUPLICATE, DEAD, RETRY, REFUSED])
async def test_nothing_else_does(timed: TimedHolds, outcome: Outcome) -> None:
    timed.learn(NOV, outcome, outcome, outcome)
    assert not timed.holds


async def test_a_name_that_only_begins_like_one_on_hold_is_free(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    assert not timed.holds.cover(make_entries(2, month="2026-11-reindexed"))


async def test_a_hold_is_logged_once_with_what_to_do(timed: TimedHolds, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = capture_log(monkeypatch, holds_module)
    refused = Outcome(PAUSE.verdict, PAUSE.error_type, PAUSE.reason, "take the block away")
    for _ in range(3):
        timed.learn(NOV, refused, refused, refused)
    timed.learn(NOV, DELIVERED, DELIVERED, DELIVERED)

    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("index_on_hold", "warning"),
        ("index_released", "info"),
    ]
    assert (lines[0]["index"], lines[0]["advice"]) == (NOVEMBER, "take the block away")
    assert timed.heard == ["held", "lifted"]


async def test_a_group_of_an_index_on_hold_waits_and_is_known_to(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    assert timed.holds.keep(7, NOV, NOBODY)
    assert not timed.holds.keep(8, DEC, NOBODY)
    assert not timed.holds.keep(9, [*NOV, *DEC], NOBODY)
    assert [row in timed.holds for row in (7, 8, 9)] == [True, False, False]


async def test_one_group_goes_as_the_probe_when_the_back_off_is_over(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    for row_id in (9, 7, 8):
        assert timed.holds.keep(row_id, NOV, NOBODY)
    await timed.clock.advance(0.9)
    assert timed.holds.due_rows() == []

    await timed.clock.advance(0.1)

    assert timed.heard == ["held", "due"]
    assert timed.holds.due_rows() == [7]
    assert not timed.holds.keep(7, NOV, NOBODY)
    assert 7 not in timed.holds
    assert timed.holds.keep(8, NOV, NOBODY), "one probe at a time"
    assert timed.holds.due_rows() == []


async def test_a_probe_that_is_not_answered_yet_is_not_followed_by_another(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    await timed.clock.advance(1)
    assert not timed.holds.keep(7, NOV, NOBODY)
    await timed.clock.advance(2)
    assert timed.holds.keep(8, NOV, {7})
    assert not timed.holds.keep(8, NOV, {})


async def test_a_new_group_may_be_the_probe_where_none_waits(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    await timed.clock.advance(1)
    assert timed.holds.due_rows() == [None]
    assert not timed.holds.keep(7, NOV, NOBODY)


async def test_the_back_off_doubles_up_to_its_cap_with_jitter(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    for delay_s in (1, 2, 4, 8, 8):
        await timed.clock.advance(delay_s)
        timed.holds.keep(1, NOV, NOBODY)
        timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    assert timed.jitters == [(0.5, 1), (1, 2), (2, 4), (4, 8), (4, 8), (4, 8)]


@pytest.mark.parametrize("outcome", [DELIVERED, DUPLICATE, DEAD])
async def test_the_first_event_that_is_settled_lifts_the_hold(timed: TimedHolds, outcome: Outcome) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    timed.holds.keep(7, NOV, NOBODY)

    timed.learn(NOV[:1], outcome)

    assert not timed.holds
    assert 7 not in timed.holds
    assert timed.heard == ["held", "lifted"]
    await timed.clock.advance(100)
    assert timed.heard == ["held", "lifted"], "no probe is due any more"


async def test_a_hold_is_not_lifted_by_a_bulk_in_which_its_index_is_refused_too(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    timed.learn(NOV, DELIVERED, PAUSE, PAUSE)
    assert timed.names() == [NOVEMBER]
    assert timed.heard == ["held"]


async def test_indices_are_held_and_lifted_each_for_itself(timed: TimedHolds) -> None:
    timed.learn([*NOV, *DEC], *[PAUSE] * 6)
    assert timed.holds.keep(1, NOV, NOBODY)
    assert timed.holds.keep(2, DEC, NOBODY)
    assert timed.holds.keep(3, [*NOV, *DEC], NOBODY)

    timed.learn(DEC, DELIVERED, DELIVERED, DELIVERED)

    assert timed.names() == [NOVEMBER]
    assert [row in timed.holds for row in (1, 2)] == [True, False]
    assert 3 not in timed.holds, "it would wait for the wrong one"
    assert not timed.holds.cover([*NOV, *DEC])


async def test_only_so_many_groups_are_remembered(timed: TimedHolds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds_module, "ROWS_MAX", 2)
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    assert all(timed.holds.keep(row_id, NOV, NOBODY) for row_id in range(5))
    assert [row_id in timed.holds for row_id in range(5)] == [True, True, False, False, False]


async def test_a_group_that_is_gone_is_forgotten(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE, PAUSE, PAUSE)
    timed.holds.keep(7, NOV, NOBODY)
    timed.holds.forget(7)
    timed.holds.forget(7)
    await timed.clock.advance(1)
    assert timed.holds.due_rows() == [None]
