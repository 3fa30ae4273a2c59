"""An index of which the sink takes nothing waits, tried now and then, and nothing else waits with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec import structs

from forebay.backoff import Backoff
from forebay.history import History
from forebay.model import DELIVERED, DROPPED, DUPLICATE, Entry, Outcome
from forebay.pipeline import holds as holds_module
from forebay.pipeline.group import Bulk
from forebay.pipeline.holds import FRESH_TRIALS_MAX, TELL_EVENTS, TELL_S, Hold, Holds, HoldState
from unit.pipeline.fakes import (
    DEAD,
    FAULTY,
    PAUSE,
    REFUSED,
    RETRY,
    Clock,
    RecordingWake,
    capture_log,
    make_entries,
    make_group,
    make_parts,
    settle_down,
)

NOVEMBER, DECEMBER = "events_test_2026-11", "events_test_2026-12"
NOV, DEC = make_entries(3), make_entries(3, month="2026-12")
OWN = structs.replace(FAULTY, is_own=True)
WHOLE_FAULTY = structs.replace(FAULTY, whole=True)


class TimedHolds:
    """Holds whose time stands still until it is moved."""

    def __init__(self, delay_s_min: float = 1, delay_s_max: float = 8) -> None:
        self.clock = Clock()
        self.jitters: list[tuple[float, float]] = []
        self.heard: list[str] = []
        self.wake = RecordingWake()
        self.holds = Holds(Backoff(delay_s_min, delay_s_max, self._jitter), self.wake, self.clock.loop)

    def _jitter(self, least: float, most: float) -> float:
        self.jitters.append((least, most))
        return most

    def learn(self, entries: list[Entry], *outcomes: Outcome) -> None:
        """Learn from a bulk of new events of one index, the last outcome for all that are left."""
        self.learn_slices([(entries, History())], *outcomes)

    def learn_slices(self, slices: Sequence[tuple[list[Entry], History]], *outcomes: Outcome) -> None:
        groups = [(make_group(entries, 1, history), entries) for entries, history in slices]
        bulk = Bulk([entry for entries, _ in slices for entry in entries], list(groups))
        filled = [*outcomes, *[outcomes[-1]] * (len(bulk.entries) - len(outcomes))]
        lifts = len(self.wake.heard)
        self.heard += [f"held {index}" for index in self.holds.learn(bulk, filled, 1_700_000_000_000)]
        self.heard += ["lifted"] * (len(self.wake.heard) - lifts)

    def names(self) -> list[str]:
        return [hold.index_name for hold in self.holds.states]

    async def due(self) -> Hold | None:
        """Return the hold of which a trial may go, if there is any."""
        waiting = asyncio.create_task(self.holds.wait_due())
        await settle_down()
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        return None


@pytest.fixture
async def timed() -> TimedHolds:
    return TimedHolds()


async def test_at_first_nothing_is_on_hold(timed: TimedHolds) -> None:
    assert not timed.holds
    assert NOVEMBER not in timed.holds
    assert not timed.holds.cover_any(make_parts(NOV))
    assert timed.holds.states == ()
    assert await timed.due() is None


@pytest.mark.parametrize("outcome", [PAUSE, FAULTY])
async def test_a_refusal_of_all_of_an_index_puts_it_on_hold_and_no_other(timed: TimedHolds, outcome: Outcome) -> None:
    timed.learn_slices([(NOV, History()), (DEC, History())], *[outcome] * 3, DELIVERED)

    assert timed.holds
    assert timed.holds.indices == {NOVEMBER}
    assert NOVEMBER in timed.holds
    assert DECEMBER not in timed.holds
    assert timed.holds.cover_any(make_parts(NOV))
    assert timed.holds.cover_any(make_parts([*DEC, *NOV]))
    assert not timed.holds.cover_any(make_parts(DEC))
    assert timed.heard == [f"held {NOVEMBER}"]


@pytest.mark.parametrize("outcome", [DELIVERED, DUPLICATE, DROPPED, DEAD, RETRY, REFUSED, WHOLE_FAULTY, OWN])
async def test_nothing_else_does(timed: TimedHolds, outcome: Outcome) -> None:
    timed.learn(NOV, outcome)
    assert not timed.holds


async def test_a_refusal_beside_one_that_is_taken_is_no_hold(timed: TimedHolds) -> None:
    timed.learn(NOV, FAULTY, DELIVERED, FAULTY)
    assert not timed.holds
    assert timed.heard == []


async def test_that_others_are_there_already_says_nothing_about_the_index_as_it_is_now(timed: TimedHolds) -> None:
    timed.learn(NOV, DUPLICATE, FAULTY, RETRY)
    assert timed.holds.indices == {NOVEMBER}


async def test_an_event_that_is_known_to_be_at_fault_puts_nothing_on_hold(timed: TimedHolds) -> None:
    struck = History(1, (1,), refusals=1, refused_status=400)
    timed.learn_slices([(NOV, struck)], FAULTY)
    assert not timed.holds
    timed.learn_slices([(NOV, struck)], PAUSE)
    assert timed.holds.indices == {NOVEMBER}, "a cause that is known to be an index's does so in any case"


async def test_a_name_that_only_begins_like_one_on_hold_is_free(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE)
    assert not timed.holds.cover_any(make_parts(make_entries(2, month="2026-11-reindexed")))


# -- the news that people get


async def test_a_known_cause_is_told_at_once_with_advice(timed: TimedHolds, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = capture_log(monkeypatch, holds_module)
    for _ in range(3):
        timed.learn(NOV, structs.replace(PAUSE, advice="take the block away"))
    state = HoldState(NOVEMBER, 1_700_000_000_000, "cluster_block_exception", "read-only", "take the block away")
    assert timed.holds.states == (state,)
    timed.learn(NOV, DELIVERED)
    await timed.clock.advance(TELL_S)

    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("index_on_hold", "warning"),
        ("index_released", "info"),
    ]
    assert (lines[0]["index"], lines[0]["advice"]) == (NOVEMBER, "take the block away")
    assert timed.heard == [f"held {NOVEMBER}", "lifted"]


async def test_an_unknown_cause_is_told_after_so_many_different_events(
    timed: TimedHolds, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = capture_log(monkeypatch, holds_module)
    events = make_entries(TELL_EVENTS)
    for _ in range(TELL_EVENTS):
        timed.learn(events[:1], FAULTY)
    timed.learn(events[:-1], FAULTY)
    assert timed.names() == []

    timed.learn(events, FAULTY)

    assert timed.names() == [NOVEMBER]
    timed.learn(make_entries(TELL_EVENTS, "more"), FAULTY)
    await timed.clock.advance(TELL_S)
    assert [line["event"] for line in lines] == ["index_on_hold"]


async def test_an_unknown_cause_is_told_after_a_minute(timed: TimedHolds) -> None:
    timed.learn(NOV, FAULTY)
    await timed.clock.advance(TELL_S - 0.1)
    assert timed.names() == []
    await timed.clock.advance(0.1)
    assert timed.names() == [NOVEMBER]


async def test_one_that_was_lifted_before_is_never_told(timed: TimedHolds, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = capture_log(monkeypatch, holds_module)
    timed.learn(NOV, FAULTY)
    await timed.clock.advance(TELL_S / 2)
    timed.learn(NOV, DELIVERED)
    timed.learn(NOV, FAULTY)
    await timed.clock.advance(TELL_S / 2)

    assert lines == []
    assert timed.names() == [], "its own minute is not over"
    await timed.clock.advance(TELL_S / 2)
    assert timed.names() == [NOVEMBER]


async def test_it_shows_the_newest_refusal_and_a_known_one_first(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE)
    timed.learn(NOV, structs.replace(FAULTY, reason="newest"))
    assert [hold.reason for hold in timed.holds.states] == ["newest"]
    timed.learn(NOV, FAULTY, PAUSE, FAULTY)
    assert [hold.reason for hold in timed.holds.states] == [PAUSE.reason]


# -- the end of a hold


@pytest.mark.parametrize("refused", [PAUSE, FAULTY])
async def test_the_first_event_that_is_taken_lifts_the_hold(timed: TimedHolds, refused: Outcome) -> None:
    timed.learn(NOV, refused)

    timed.learn(NOV[:1], DELIVERED)

    assert not timed.holds
    assert not timed.holds.cover_any(make_parts(NOV))
    assert timed.heard == [f"held {NOVEMBER}", "lifted"]
    await timed.clock.advance(100)
    assert await timed.due() is None, "no trial is due any more"


@pytest.mark.parametrize("outcome", [DUPLICATE, DROPPED, DEAD, RETRY, REFUSED])
async def test_nothing_else_lifts_it(timed: TimedHolds, outcome: Outcome) -> None:
    timed.learn(NOV, FAULTY)
    timed.learn(NOV, outcome)
    assert timed.holds.indices == {NOVEMBER}


async def test_one_that_is_taken_beside_others_that_are_refused_lifts_it(timed: TimedHolds) -> None:
    timed.learn(NOV, FAULTY)
    timed.learn(NOV, FAULTY, DELIVERED, FAULTY)
    assert not timed.holds


async def test_if_a_known_cause_meets_a_part_of_an_index_the_hold_stays_and_the_next_trial_need_not_wait(
    timed: TimedHolds,
) -> None:
    timed.learn(NOV, PAUSE)
    timed.learn(NOV, DELIVERED, PAUSE)

    assert timed.names() == [NOVEMBER]
    assert timed.heard == [f"held {NOVEMBER}"]
    hold = await timed.due()
    assert hold
    timed.holds.end_trial(hold)
    assert timed.jitters == [(0.5, 1), (0.5, 1)]


async def test_indices_are_held_and_lifted_each_for_itself(timed: TimedHolds) -> None:
    timed.learn_slices([(NOV, History()), (DEC, History())], PAUSE)
    assert timed.names() == [NOVEMBER, DECEMBER]

    timed.learn(DEC, DELIVERED)

    assert timed.names() == [NOVEMBER]
    assert timed.holds.cover_any(make_parts(NOV))
    assert not timed.holds.cover_any(make_parts(DEC))


# -- when a trial may go


async def test_a_trial_may_go_when_the_back_off_is_over(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE)
    await timed.clock.advance(0.9)
    assert await timed.due() is None
    waiting = asyncio.create_task(timed.holds.wait_due())
    await settle_down()
    assert not waiting.done()

    await timed.clock.advance(0.1)

    assert (await asyncio.wait_for(waiting, 1)).index == NOVEMBER


async def test_one_trial_of_an_index_goes_at_a_time(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE)
    await timed.clock.advance(1)
    hold = await timed.due()
    assert hold
    timed.holds.note_fresh(NOVEMBER)
    assert await timed.due() is None, "it is not answered yet"

    timed.holds.end_trial(hold)

    assert await timed.due() is hold, "a trial that became due meanwhile is not forgotten"


async def test_the_back_off_doubles_with_each_trial_up_to_its_cap_with_jitter(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE)
    for delay_s in (1, 2, 4, 8, 8):
        await timed.clock.advance(delay_s - 0.1)
        assert await timed.due() is None
        await timed.clock.advance(0.1)
        hold = await timed.due()
        assert hold
        timed.learn(NOV, PAUSE)
        timed.holds.end_trial(hold)
    assert timed.jitters == [(0.5, 1), (1, 2), (2, 4), (4, 8), (4, 8), (4, 8)]


async def test_fresh_events_are_tried_at_once_a_few_times(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE)
    for _ in range(FRESH_TRIALS_MAX):
        timed.holds.note_fresh(NOVEMBER)
        timed.holds.note_fresh(NOVEMBER)
        hold = await timed.due()
        assert hold
        timed.holds.end_trial(hold)
        assert await timed.due() is None, "however many came before it"

    timed.holds.note_fresh(NOVEMBER)

    assert await timed.due() is None
    await timed.clock.advance(8)
    assert await timed.due()


async def test_a_trial_that_ends_after_its_hold_was_lifted_sets_no_time_for_another(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE)
    await timed.clock.advance(1)
    hold = await timed.due()
    assert hold
    timed.learn(NOV, DELIVERED)
    timed.learn(NOV, PAUSE)
    waiting = len(timed.clock.waiting)

    timed.holds.end_trial(hold)

    assert len(timed.clock.waiting) == waiting
    await timed.clock.advance(1)
    new = await timed.due()
    assert new
    assert new is not hold


async def test_indices_are_due_each_for_itself(timed: TimedHolds) -> None:
    timed.learn(NOV, PAUSE)
    await timed.clock.advance(0.5)
    timed.learn(DEC, PAUSE)
    await timed.clock.advance(0.5)
    first = await timed.due()
    assert first
    assert first.index == NOVEMBER
    await timed.clock.advance(0.5)
    second = await timed.due()
    assert second, "it does not wait for the trial of the other"
    assert second.index == DECEMBER
