"""From outcomes to rows: a row goes, shrinks or stays only when its last event has an outcome."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from msgspec import structs

from forebay.history import DeadLetter, History
from forebay.model import DELIVERED, DUPLICATE, Entry, Outcome, Verdict
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.group import UNTRIED, Bulk, Group, Settlement, divide
from forebay.pipeline.settlement import abandon, bury, halve, settle
from forebay.spool.records import NewGroup, Transaction
from unit.pipeline.fakes import DEAD, FAILED, FAULTY, PAUSE, RETRY, make_entries, make_group

NOW_MS = 1_700_000_000_000
FIRST = History(1, (NOW_MS,))
STRUCK = structs.replace(FAULTY, is_own=True, is_struck=True)
A, B, C = make_entries(3, "abc")


def take(group: Group, events: int) -> tuple[Group, list[Entry]]:
    """Take a slice of a group, as the channel does."""
    part = group.entries[group.cut : group.cut + events]
    group.cut += len(part)
    return group, part


def divide_slices(
    slices: Sequence[tuple[Group, Sequence[Entry]]], outcomes: list[Outcome], evidence: Evidence | None = None
) -> list[Settlement]:
    bulk = Bulk([entry for _, part in slices for entry in part], list(slices))
    return settle(bulk, outcomes, NOW_MS, itertools.count(100).__next__, evidence or Evidence())


def settle_slices(
    slices: Sequence[tuple[Group, Sequence[Entry]]], outcomes: list[Outcome], evidence: Evidence | None = None
) -> Settlement:
    """Return all settlements of a bulk as one."""
    together = Settlement(Transaction(), [])
    for settlement in divide_slices(slices, outcomes, evidence):
        together.transaction.absorb(settlement.transaction)
        together.leaving.extend(settlement.leaving)
    return together


def settle_group(group: Group, *outcomes: Outcome, evidence: Evidence | None = None) -> Settlement:
    return settle_slices([take(group, len(group.entries))], list(outcomes), evidence)


@pytest.mark.parametrize(
    "outcomes",
    [(DELIVERED, DELIVERED, DELIVERED), (DELIVERED, DUPLICATE, DELIVERED), (DUPLICATE, DUPLICATE, DUPLICATE)],
)
def test_a_row_whose_events_are_all_settled_is_deleted(outcomes: tuple[Outcome, ...]) -> None:
    group = make_group([A, B, C], row_id=7)

    settlement = settle_group(group, *outcomes)

    assert settlement.transaction == Transaction(deletes=[7])
    assert settlement.leaving == [group]


@pytest.mark.parametrize("outcome", [RETRY, PAUSE])
def test_a_row_shrinks_to_the_events_that_are_left(outcome: Outcome) -> None:
    settlement = settle_group(make_group([A, B, C], row_id=7), DELIVERED, outcome, DUPLICATE)

    assert settlement.transaction == Transaction(shrinks=[(7, [B], FIRST)])


@pytest.mark.parametrize("outcome", [RETRY, PAUSE])
def test_a_row_of_which_nothing_is_settled_counts_an_attempt(outcome: Outcome) -> None:
    group = make_group([A, B], row_id=7)

    settlement = settle_group(group, outcome, RETRY)

    assert settlement.transaction == Transaction(attempts=[(7, FIRST)])
    assert settlement.leaving == [group]


def test_an_event_that_the_sink_will_never_take_becomes_a_dead_letter() -> None:
    settlement = settle_group(
        make_group([A, B, C], row_id=7, history=History(4, (1, 2, 3, 4), 2)), DELIVERED, DEAD, RETRY
    )

    history = History(5, (1, 2, 3, 4, NOW_MS), 2)
    assert settlement.transaction == Transaction(
        shrinks=[(7, [C], history)],
        dead=[DeadLetter(B, "mapper_parsing_exception", "failed to parse", history, died_at_ms=NOW_MS)],
    )


def test_a_row_of_dead_letters_is_deleted_with_the_commit_that_keeps_them() -> None:
    settlement = settle_group(make_group([A, B], row_id=7), DEAD, DEAD)

    assert settlement.transaction.deletes == [7]
    assert [letter.entry for letter in settlement.transaction.dead] == [A, B]


def test_delivered_events_without_a_row_need_no_commit() -> None:
    group = make_group([A, B])

    settlement = settle_group(group, DELIVERED, DUPLICATE)

    assert not settlement.transaction
    assert settlement.leaving == [group]


def test_events_without_a_row_get_one_only_for_the_rest() -> None:
    settlement = settle_group(make_group([A, B, C]), RETRY, DELIVERED, PAUSE)

    assert settlement.transaction == Transaction(inserts=[NewGroup(100, [A, C], FIRST)])


def test_a_dead_event_without_a_row_becomes_a_dead_letter() -> None:
    settlement = settle_group(make_group([A, B]), DEAD, DELIVERED)

    assert settlement.transaction == Transaction(
        dead=[DeadLetter(A, "mapper_parsing_exception", "failed to parse", FIRST, died_at_ms=NOW_MS)]
    )


def test_a_group_cut_over_two_bulks_stays_until_the_second_is_answered() -> None:
    group = make_group([A, B, C], row_id=7)
    first, second = take(group, 2), take(group, 1)

    early = settle_slices([first], [DELIVERED, DELIVERED])
    assert not early.transaction
    assert early.leaving == []

    late = settle_slices([second], [DELIVERED])
    assert late.transaction == Transaction(deletes=[7])
    assert late.leaving == [group]


def test_a_group_cut_over_two_bulks_shrinks_to_the_rest_of_both() -> None:
    group = make_group([A, B, C], row_id=7)
    first, second = take(group, 2), take(group, 1)

    # The second bulk may be answered first.
    assert not settle_slices([second], [RETRY]).transaction
    settlement = settle_slices([first], [DELIVERED, RETRY])

    ((row_id, rest, history),) = settlement.transaction.shrinks
    assert (row_id, history) == (7, FIRST)
    assert sorted(rest) == [B, C]


def test_a_group_cut_over_two_bulks_keeps_its_dead_letters_with_each_bulk() -> None:
    group = make_group([A, B, C], row_id=7)
    first, second = take(group, 2), take(group, 1)

    early = settle_slices([first], [DEAD, DELIVERED])
    assert [letter.entry for letter in early.transaction.dead] == [A]
    assert early.transaction.deletes == []

    assert settle_slices([second], [RETRY]).transaction == Transaction(shrinks=[(7, [C], FIRST)])


def test_a_group_without_a_row_cut_over_two_bulks_gets_one_row() -> None:
    group = make_group([A, B, C])
    first, second = take(group, 2), take(group, 1)

    assert not settle_slices([first], [RETRY, DELIVERED]).transaction
    assert settle_slices([second], [RETRY]).transaction == Transaction(inserts=[NewGroup(100, [A, C], FIRST)])


def test_each_group_of_a_bulk_gets_its_own_outcomes() -> None:
    gone, left, memory = make_group([A], row_id=1), make_group([B], row_id=2), make_group([C])

    settlement = settle_slices([take(gone, 1), take(left, 1), take(memory, 1)], [DELIVERED, RETRY, RETRY])

    assert settlement.transaction == Transaction(
        deletes=[1], attempts=[(2, FIRST)], inserts=[NewGroup(100, [C], FIRST)]
    )
    assert settlement.leaving == [gone, left, memory]


def give_up(group: Group, evidence: Evidence | None = None) -> Settlement:
    (settlement,) = abandon([group], NOW_MS, itertools.count(100).__next__, evidence or Evidence())
    assert settlement.leaving == [group]
    return settlement


def test_a_group_that_is_given_up_untried_stays_in_its_row_or_gets_one() -> None:
    assert not give_up(make_group([A, B], row_id=7, history=FIRST)).transaction
    assert give_up(make_group([A, B])).transaction == Transaction(inserts=[NewGroup(100, [A, B])])


def test_a_group_that_is_given_up_in_the_middle_keeps_only_what_is_not_settled() -> None:
    stored, memory = make_group([A, B], row_id=7), make_group([A, B])
    for group in (stored, memory):
        settle_slices([take(group, 1)], [DELIVERED])

    assert give_up(stored).transaction == Transaction(shrinks=[(7, [B], UNTRIED)])
    assert give_up(memory).transaction == Transaction(inserts=[NewGroup(100, [B])])


@pytest.mark.parametrize("row_id", [7, None])
def test_of_a_group_that_is_given_up_each_event_keeps_its_own_history(row_id: int | None) -> None:
    group = make_group([A, B, C], row_id)
    settle_slices([take(group, 2)], [RETRY, STRUCK])

    transaction = give_up(group).transaction

    histories = {A: FIRST, B: History(1, (NOW_MS,), refusals=1, refused_status=400), C: UNTRIED}
    kept = [(entries, history) for _, entries, history in transaction.shrinks]
    added = [(entries, history) for _, entries, history, _ in transaction.inserts]
    assert [*kept, *added] == [([entry], history) for entry, history in histories.items()]
    assert len(kept) == (row_id is not None)
    assert len({row.id for row in transaction.inserts}) == len(added)


def test_events_that_are_given_up_are_as_old_as_before_and_as_they_came() -> None:
    group = make_group([A, B], row_id=7)
    group.received_at_ms = 1000
    group.originals = {A: C}
    settle_slices([take(group, 1)], [RETRY])

    transaction = give_up(group).transaction

    assert transaction.shrinks == [(7, [C], FIRST)]
    assert transaction.inserts == [NewGroup(100, [B], UNTRIED, 1000)]


def test_an_event_that_is_given_up_untried_counts_as_refused_when_it_was() -> None:
    evidence = Evidence()
    refused = History(1, (NOW_MS,), refusals=1, refused_status=400)
    evidence.note_left(7, refused, is_struck=True)
    other = make_group([C], row_id=8)
    evidence.weigh(evidence.number_bulk(), Bulk([C], [(other, [C])]), [DELIVERED])
    group = make_group([A, B], 7, refused)
    settle_slices([take(group, 1)], [DELIVERED])

    give_up(group, evidence)

    bulk = Bulk([B], [(make_group([B], 7, refused), [B])])
    (outcome,) = evidence.weigh(evidence.number_bulk(), bulk, [FAULTY])
    assert outcome.verdict is Verdict.DEAD, "another was taken since"


def test_an_outcome_settles_or_it_does_not() -> None:
    settled = {verdict for verdict in Verdict if Outcome(verdict).settled}

    assert settled == {Verdict.DELIVERED, Verdict.DUPLICATE, Verdict.DROPPED, Verdict.DEAD}


def test_a_failure_while_others_were_taken_is_a_strike() -> None:
    evidence = Evidence()
    evidence.failures.note_failure(7)
    evidence.failures.taken += 1

    settlement = settle_group(make_group([A], row_id=7), FAILED, evidence=evidence)

    assert settlement.transaction == Transaction(attempts=[(7, History(1, (NOW_MS,), strikes=1))])


@pytest.mark.parametrize("outcome", [RETRY, PAUSE])
def test_an_answer_about_single_events_is_no_strike(outcome: Outcome) -> None:
    evidence = Evidence()
    evidence.failures.note_failure(7)
    evidence.failures.taken += 1
    settlement = settle_group(make_group([A], row_id=7), outcome, evidence=evidence)
    assert settlement.transaction == Transaction(attempts=[(7, History(1, (NOW_MS,)))])


OF_A_PROXY = structs.replace(FAULTY, status=403)
REFUSED_ONCE = FIRST.refused(400, is_struck=False)


@pytest.mark.parametrize(
    ("outcome", "refusals", "status"), [(FAULTY, 0, 400), (STRUCK, 1, 400), (OF_A_PROXY, 0, 403), (PAUSE, 0, 0)]
)
def test_a_refusal_is_kept_with_the_row_and_counts_as_far_as_there_is_evidence(
    outcome: Outcome, refusals: int, status: int
) -> None:
    settlement = settle_group(make_group([A, B], row_id=7), outcome, outcome)

    history = History(1, (NOW_MS,), refusals=refusals, refused_status=status)
    assert settlement.transaction == Transaction(attempts=[(7, history)])


def test_a_delivery_that_says_nothing_keeps_the_refusal_of_before() -> None:
    settlement = settle_group(make_group([A], row_id=7, history=History(1, (1,), 0, 1, 400)), RETRY)
    assert settlement.transaction == Transaction(attempts=[(7, History(2, (1, NOW_MS), 0, 1, 400))])


def test_events_that_were_refused_are_parted_from_the_others() -> None:
    group = make_group([A, B, C], row_id=7)

    settlement = settle_group(group, RETRY, STRUCK, RETRY)

    assert settlement.transaction == Transaction(
        shrinks=[(7, [A, C], FIRST)], inserts=[NewGroup(100, [B], FIRST.refused(400, is_struck=True))]
    )
    assert settlement.leaving == [group]
    assert group.kept == [A, C], "the other one is not in its row any more"


def test_events_that_were_refused_differently_are_parted() -> None:
    settlement = settle_group(make_group([A, B, C], row_id=7), FAULTY, OF_A_PROXY, DELIVERED)

    assert settlement.transaction == Transaction(
        shrinks=[(7, [A], REFUSED_ONCE)], inserts=[NewGroup(100, [B], FIRST.refused(403, is_struck=False))]
    )


def test_a_group_without_a_row_is_parted_into_rows_of_their_own() -> None:
    settlement = settle_group(make_group([A, B, C]), RETRY, FAULTY, RETRY)

    assert settlement.transaction == Transaction(
        inserts=[NewGroup(100, [A, C], FIRST), NewGroup(101, [B], REFUSED_ONCE)]
    )


def test_a_group_cut_over_two_bulks_is_parted_by_the_outcomes_of_both() -> None:
    group = make_group([A, B, C], row_id=7)
    first, second = take(group, 2), take(group, 1)

    assert not settle_slices([first], [FAULTY, DELIVERED]).transaction
    settlement = settle_slices([second], [RETRY])

    assert settlement.transaction == Transaction(shrinks=[(7, [A], REFUSED_ONCE)], inserts=[NewGroup(100, [C], FIRST)])


def test_each_part_is_remembered_for_the_next_refusal() -> None:
    evidence = Evidence()
    settle_group(make_group([A, B], row_id=7), FAULTY, RETRY, evidence=evidence)
    evidence.weigh(evidence.number_bulk(), Bulk([C], [(make_group([C]), [C])]), [DELIVERED])

    parts = [make_group([A], 7, REFUSED_ONCE), make_group([B], 100, FIRST)]
    weighed = [evidence.weigh(9, Bulk(group.entries, [(group, group.entries)]), [FAULTY]) for group in parts]
    assert [outcome.is_struck for outcomes in weighed for outcome in outcomes] == [True, False]


def test_a_row_that_is_gone_is_forgotten() -> None:
    evidence = Evidence()
    settle_group(make_group([A], row_id=7), FAULTY, evidence=evidence)
    settle_group(make_group([A], 7, REFUSED_ONCE), DELIVERED, evidence=evidence)
    evidence.weigh(evidence.number_bulk(), Bulk([C], [(make_group([C]), [C])]), [DELIVERED])

    group = make_group([B], 7, REFUSED_ONCE)
    (outcome,) = evidence.weigh(9, Bulk([B], [(group, [B])]), [FAULTY])
    assert not outcome.is_struck


def test_an_event_that_was_sent_in_another_form_is_kept_as_it_came() -> None:
    group = make_group([A, B, C], row_id=7)
    group.originals = {A: b"first", B: b"second"}

    settlement = settle_group(group, RETRY, DEAD, RETRY)

    assert settlement.transaction.shrinks == [(7, [b"first", C], FIRST)]
    assert [letter.entry for letter in settlement.transaction.dead] == [b"second"]


def test_settlements_that_make_room_do_not_wait_for_those_that_need_some() -> None:
    gone, parted, shrunk = (make_group([A], 1), make_group([A, B], 2), make_group([B, C], 3))
    slices = [take(group, 2) for group in (gone, parted, shrunk)]

    settlements = divide_slices(slices, [DELIVERED, FAULTY, RETRY, RETRY, DELIVERED])

    old, new = divide(settlements)
    assert [settlement.transaction for settlement in old] == [
        Transaction(deletes=[1]),
        Transaction(shrinks=[(3, [B], FIRST)]),
    ]
    assert [settlement.transaction for settlement in new] == [
        Transaction(shrinks=[(2, [A], REFUSED_ONCE)], inserts=[NewGroup(100, [B], FIRST)])
    ]
    assert [group for settlement in (*old, *new) for group in settlement.leaving] == [gone, shrunk, parted]


def test_a_group_is_halved_in_one_transaction() -> None:
    group = make_group([A, B, C], row_id=7)
    group.history = History(9, (1, 2), strikes=4)

    settlement = halve(group, itertools.count(100).__next__)

    history = History(9, (1, 2), strikes=3)
    assert settlement.transaction == Transaction(
        inserts=[NewGroup(100, [A], history), NewGroup(101, [B, C], history)], deletes=[7]
    )
    assert settlement.leaving == [group]


def test_poison_is_kept_as_a_dead_letter_with_its_history() -> None:
    group = make_group([A], row_id=7)
    group.history = History(9, (1, 2), strikes=6)

    settlement = bury(group, "the cause", NOW_MS)

    assert settlement.transaction == Transaction(
        dead=[DeadLetter(A, "poison", "the cause", group.history, NOW_MS)], deletes=[7]
    )
    assert settlement.leaving == [group]


def test_a_group_that_is_halved_is_not_deleted_before_its_halves_are_there() -> None:
    settlement = halve(make_group(make_entries(4), 7), itertools.count(8).__next__)
    assert divide([settlement]) == ([], [settlement])
