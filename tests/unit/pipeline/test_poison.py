"""An event is poison only if nothing else explains what happens to it."""

from __future__ import annotations

import pytest
from msgspec import structs

from forebay.model import Outcome, Verdict
from forebay.pipeline import evidence
from forebay.pipeline.evidence import OTHERS_MIN, FailureHistory
from unit.pipeline.fakes import DEAD, FAILED, FAULTY, PAUSE, REFUSED, RETRY


@pytest.mark.parametrize(
    ("outcome", "may_be_blocked"),
    [
        (FAILED, True),
        (Outcome(Verdict.RETRY, "unexpected_answer", "html", whole=True), True),
        (Outcome(Verdict.RETRY, "http_503", "", whole=True), True),
        (Outcome(Verdict.RETRY, "rejected_execution_exception", "busy", whole=True, is_busy=True), False),
        (Outcome(Verdict.RETRY, "http_429", "", whole=True, is_busy=True), False),
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
    assert outcome.is_blocking is may_be_blocked


def test_a_first_failure_is_no_strike() -> None:
    failures = FailureHistory()
    failures.taken = 100
    assert not failures.count_failure(1, is_single=False)


@pytest.mark.parametrize("single", [False, True])
def test_a_sink_that_takes_nothing_makes_no_strike_however_long(*, single: bool) -> None:
    failures = FailureHistory()
    for _ in range(10_000):
        failures.failed += 1
        assert not failures.count_failure(1, is_single=single)


def test_a_failure_is_a_strike_once_another_bulk_was_taken_since_the_one_before() -> None:
    failures = FailureHistory()
    failures.count_failure(1, is_single=False)
    assert not failures.count_failure(1, is_single=False)
    failures.taken += 1
    assert failures.count_failure(1, is_single=False)
    assert not failures.count_failure(1, is_single=False), "each strike needs another one"


def test_groups_are_doubted_each_for_itself() -> None:
    failures = FailureHistory()
    failures.count_failure(1, is_single=False)
    failures.taken += 1
    assert not failures.count_failure(2, is_single=False)
    assert failures.count_failure(1, is_single=False)


def test_for_a_single_event_several_others_have_to_be_taken() -> None:
    failures = FailureHistory()
    failures.note_failure(1)
    failures.taken += OTHERS_MIN - 1
    assert not failures.count_failure(1, is_single=True)
    failures.taken += 1
    assert failures.count_failure(1, is_single=True)


def test_a_single_event_has_no_strike_while_usual_bulks_fail_too() -> None:
    failures = FailureHistory()
    failures.note_failure(1)
    for _ in range(100):
        failures.taken += 10 * OTHERS_MIN
        failures.failed += 1
        assert not failures.count_failure(1, is_single=True)
    failures.taken += OTHERS_MIN
    assert failures.count_failure(1, is_single=True)


def test_only_so_many_failures_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "FAILED_ROWS_MAX", 3)
    failures = FailureHistory()
    for row_id in (1, 2, 3, 1, 4):
        failures.note_failure(row_id)
    failures.taken += 1
    assert [failures.count_failure(row_id, is_single=False) for row_id in (1, 3, 4)] == [1, 1, 1]
    assert not failures.count_failure(2, is_single=False), "forgotten, as the one whose failure is longest ago"
