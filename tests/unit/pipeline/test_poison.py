"""An event is poison only if nothing else explains what happens to it."""

from __future__ import annotations

import pytest
from msgspec import structs

from forebay.model import UNEXPECTED_ANSWER, History, Outcome, Verdict
from forebay.pipeline import poison
from forebay.pipeline.poison import OTHERS_MIN, STRIKES_MAX, Doubts, Step, blocks, halve, next_step
from unit.pipeline.fakes import DEAD, FAILED, FAULTY, PAUSE, REFUSED, RETRY


@pytest.mark.parametrize(
    ("strikes", "events", "step"),
    [
        (0, 1, Step.TOGETHER),
        (2, 1000, Step.TOGETHER),
        (3, 1000, Step.ALONE),
        (4, 1000, Step.HALVE),
        (4, 2, Step.HALVE),
        (3, 1, Step.ALONE),
        (5, 1, Step.ALONE),
        (6, 1, Step.BURY),
        (9, 1, Step.BURY),
    ],
)
def test_what_follows_from_strikes(strikes: int, events: int, step: Step) -> None:
    assert next_step(History(strikes=strikes), events) is step


def test_halves_are_suspect_and_not_tried_yet() -> None:
    history = halve(History(9, (1, 2, 3), strikes=4, refusals=1, refused_status=400))
    assert history == History(9, (1, 2, 3), strikes=STRIKES_MAX, refusals=1, refused_status=400)
    assert next_step(history, 500) is next_step(history, 1) is Step.ALONE


@pytest.mark.parametrize(
    ("outcome", "may_be_blocked"),
    [
        (FAILED, True),
        (Outcome(Verdict.RETRY, UNEXPECTED_ANSWER, "html", whole=True), True),
        (Outcome(Verdict.RETRY, "http_503", "", whole=True), True),
        (Outcome(Verdict.RETRY, "rejected_execution_exception", "busy", whole=True), False),
        (Outcome(Verdict.RETRY, "http_429", "", whole=True), False),
        (RETRY, False),
        (PAUSE, False),
        (REFUSED, False),
        (DEAD, False),
        (FAULTY, False),
        (structs.replace(FAULTY, whole=True), False),
    ],
)
def test_only_a_bulk_that_ended_without_a_word_on_its_events_may_have_been_blocked(
    outcome: Outcome,
    *,
    may_be_blocked: bool,
) -> None:
    assert blocks(outcome) is may_be_blocked


def test_a_first_failure_is_no_strike() -> None:
    doubts = Doubts()
    doubts.taken = 100
    assert not doubts.is_strike(1, single=False)


@pytest.mark.parametrize("single", [False, True])
def test_a_sink_that_takes_nothing_makes_no_strike_however_long(*, single: bool) -> None:
    doubts = Doubts()
    for _ in range(10_000):
        doubts.failed += 1
        assert not doubts.is_strike(1, single=single)


def test_a_failure_is_a_strike_once_another_bulk_was_taken_since_the_one_before() -> None:
    doubts = Doubts()
    doubts.is_strike(1, single=False)
    assert not doubts.is_strike(1, single=False)
    doubts.taken += 1
    assert doubts.is_strike(1, single=False)
    assert not doubts.is_strike(1, single=False), "each strike needs another one"


def test_groups_are_doubted_each_for_itself() -> None:
    doubts = Doubts()
    doubts.is_strike(1, single=False)
    doubts.taken += 1
    assert not doubts.is_strike(2, single=False)
    assert doubts.is_strike(1, single=False)


def test_for_a_single_event_several_others_have_to_be_taken() -> None:
    doubts = Doubts()
    doubts.mark(1)
    doubts.taken += OTHERS_MIN - 1
    assert not doubts.is_strike(1, single=True)
    doubts.taken += 1
    assert doubts.is_strike(1, single=True)


def test_a_single_event_has_no_strike_while_usual_bulks_fail_too() -> None:
    doubts = Doubts()
    doubts.mark(1)
    for _ in range(100):
        doubts.taken += 10 * OTHERS_MIN
        doubts.failed += 1
        assert not doubts.is_strike(1, single=True)
    doubts.taken += OTHERS_MIN
    assert doubts.is_strike(1, single=True)


def test_only_so_many_failures_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison, "MARKS_MAX", 3)
    doubts = Doubts()
    for row_id in (1, 2, 3, 1, 4):
        doubts.mark(row_id)
    doubts.taken += 1
    assert [doubts.is_strike(row_id, single=False) for row_id in (1, 3, 4)] == [True, True, True]
    assert not doubts.is_strike(2, single=False), "forgotten, as the one that was marked longest ago"
