"""A refusal counts against an event only if others of its index are taken."""

from __future__ import annotations

import itertools

import pytest

from forebay.model import DELIVERED, DROPPED, DUPLICATE, History, Outcome, Verdict
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.group import Bulk, Group
from forebay.pipeline.settlement import settle
from unit.pipeline.fakes import RETRY, make_entry, make_group

OCTOBER, NOVEMBER = "2026-10", "2026-11"


def refusal(status: int) -> Outcome:
    return Outcome(Verdict.REFUSED, "strange_exception", "no", status=status)


class Sink:
    """Bulks one after the other, and what becomes of their events."""

    def __init__(self) -> None:
        self.evidence = Evidence()
        self.ids = itertools.count(1000)
        self.dead: list[str] = []

    def send(self, *pairs: tuple[Group, Outcome]) -> int:
        """Send a bulk of groups of one event each; return its number, and deliver nothing yet."""
        del pairs
        return self.evidence.number_bulk()

    def deliver(self, *pairs: tuple[Group, Outcome], number: int = 0) -> list[Outcome]:
        number = number or self.evidence.number_bulk()
        groups = [group for group, _ in pairs]
        bulk = Bulk([group.entries[0] for group in groups], [(group, group.entries) for group in groups])
        weighed = self.evidence.weigh(number, bulk, [outcome for _, outcome in pairs])
        settlements = settle(bulk, weighed, 1, self.ids.__next__, self.evidence)
        for settlement in settlements:
            self.dead += [letter.error_type for letter in settlement.transaction.dead]
            for row_id, history in settlement.transaction.attempts:
                self.histories[row_id] = history
        return list(weighed)

    histories: dict[int, History]


@pytest.fixture
def sink() -> Sink:
    sink = Sink()
    sink.histories = {}
    return sink


def bad(sink: Sink, row_id: int = 1, month: str = NOVEMBER) -> Group:
    """Return the group of an event as it comes from the spool."""
    return make_group([make_entry(f"bad{row_id}", month=month)], row_id, sink.histories.get(row_id, History()))


def good(month: str = NOVEMBER) -> Group:
    return make_group([make_entry("good", month=month)], 500)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_event_dies_at_its_second_refusal_beside_others_that_are_taken(sink: Sink, status: int) -> None:
    (first, _) = sink.deliver((bad(sink), refusal(status)), (good(), DELIVERED))
    assert (first.verdict, first.is_own, first.is_struck) == (Verdict.REFUSED, True, True)
    assert sink.dead == []

    (second, _) = sink.deliver((bad(sink), refusal(status)), (good(), DELIVERED))
    assert second.verdict is Verdict.DEAD
    assert sink.dead == ["strange_exception"]


@pytest.mark.parametrize("status", [400, 403, 500])
def test_an_event_that_is_refused_alone_waits_for_ever(sink: Sink, status: int) -> None:
    for _ in range(100):
        sink.evidence.rounds += 1
        (outcome,) = sink.deliver((bad(sink), refusal(status)))
        assert (outcome.verdict, outcome.is_own, outcome.is_struck) == (Verdict.REFUSED, False, False)
    assert sink.histories[1].refusals == 0


@pytest.mark.parametrize("outcome", [DUPLICATE, DROPPED, RETRY, refusal(400)])
def test_only_what_is_created_is_evidence(sink: Sink, outcome: Outcome) -> None:
    for _ in range(5):
        (refused, _) = sink.deliver((bad(sink), refusal(400)), (good(), outcome))
        assert not refused.is_own


def test_what_is_taken_into_another_index_is_no_evidence(sink: Sink) -> None:
    for _ in range(5):
        (refused, _) = sink.deliver((bad(sink), refusal(400)), (good(OCTOBER), DELIVERED))
        assert not refused.is_own


def test_a_bulk_sent_after_the_last_refusal_is_evidence(sink: Sink) -> None:
    sink.deliver((bad(sink), refusal(400)))
    sink.deliver((good(), DELIVERED))
    (outcome,) = sink.deliver((bad(sink), refusal(400)))
    assert outcome.is_struck
    (outcome,) = sink.deliver((bad(sink), refusal(400)))
    assert not outcome.is_own, "nothing was taken since"
    sink.deliver((good(), DELIVERED))
    (outcome,) = sink.deliver((bad(sink), refusal(400)))
    assert outcome.verdict is Verdict.DEAD


def test_a_bulk_that_was_under_way_at_the_last_refusal_is_none(sink: Sink) -> None:
    under_way = sink.send()
    sink.deliver((bad(sink), refusal(400)))
    sink.deliver((good(), DELIVERED), number=under_way)
    (outcome,) = sink.deliver((bad(sink), refusal(400)))
    assert not outcome.is_own


def test_an_event_never_refused_has_no_use_for_what_was_taken_before(sink: Sink) -> None:
    sink.deliver((good(), DELIVERED))
    (outcome,) = sink.deliver((bad(sink), refusal(400)))
    assert not outcome.is_own


def test_an_index_that_fills_up_in_the_middle_of_a_bulk_costs_nobody_his_life(sink: Sink) -> None:
    groups = [bad(sink, row_id) for row_id in range(1, 8)]
    sink.deliver((good(), DELIVERED), *((group, refusal(400)) for group in groups))
    for _ in range(20):
        groups = [bad(sink, row_id) for row_id in range(1, 8)]
        outcomes = sink.deliver(*((group, refusal(400)) for group in groups))
        assert not any(outcome.is_own for outcome in outcomes)
    assert sink.dead == []


@pytest.mark.parametrize("status", [403, 404, 409, 500])
def test_another_status_takes_ten_rounds(sink: Sink, status: int) -> None:
    for number in range(1, 11):
        sink.evidence.rounds += 1
        assert sink.dead == [], f"round {number}"
        for _ in range(3):  # passes of one round
            sink.deliver((bad(sink), refusal(status)), (good(), DELIVERED))
            if sink.dead:
                break
    assert sink.dead == ["strange_exception"]


def test_a_new_process_has_no_evidence_and_the_strikes_of_before(sink: Sink) -> None:
    sink.deliver((bad(sink), refusal(400)), (good(), DELIVERED))
    sink.deliver((good(), DELIVERED))
    sink.evidence = Evidence()
    (outcome,) = sink.deliver((bad(sink), refusal(400)))
    assert not outcome.is_own
    (outcome, _) = sink.deliver((bad(sink), refusal(400)), (good(), DELIVERED))
    assert outcome.verdict is Verdict.DEAD


def test_events_of_one_row_that_fare_differently_get_rows_of_their_own(sink: Sink) -> None:
    entries = [make_entry(name) for name in "abcde"]
    group = make_group(entries, 1)
    bulk = Bulk(entries, [(group, entries)])
    outcomes = [DELIVERED, refusal(400), RETRY, refusal(500), refusal(400)]
    weighed = sink.evidence.weigh(sink.evidence.number_bulk(), bulk, outcomes)

    settlements = settle(bulk, weighed, 7, sink.ids.__next__, sink.evidence)

    (divided,) = [settlement for settlement in settlements if settlement.transaction]
    b, c, d, e = entries[1:]
    assert divided.transaction.shrinks == [(1, [b, e], History(1, (7,), refusals=1, refused_status=400))]
    assert [(row.entries, row.history) for row in divided.transaction.inserts] == [
        ([c], History(1, (7,))),
        ([d], History(1, (7,), refusals=1, refused_status=500)),
    ]


def test_what_was_sent_in_another_form_is_kept_and_dies_as_it_came(sink: Sink) -> None:
    came, sent = make_entry("a"), make_entry("a", size=200)
    for outcome, kept in [(refusal(400), "shrinks"), (Outcome(Verdict.DEAD, "t", "r"), "dead")]:
        other = make_entry("b")
        group = make_group([sent, other], 1)
        group.originals = {sent: came}
        bulk = Bulk(group.entries, [(group, group.entries)])
        settlements = settle(bulk, [outcome, DELIVERED], 7, sink.ids.__next__, sink.evidence)
        written = [
            *(entry for one in settlements for _, rest, _ in one.transaction.shrinks for entry in rest),
            *(letter.entry for one in settlements for letter in one.transaction.dead),
        ]
        assert written == [came], kept
