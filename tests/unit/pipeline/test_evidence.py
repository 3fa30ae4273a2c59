"""A refusal counts against an event only if others are taken, and so does a delivery that ends without an answer."""

from __future__ import annotations

import itertools

import pytest
from msgspec import structs

from forebay.history import History
from forebay.model import DELIVERED, DROPPED, DUPLICATE, Outcome, Verdict
from forebay.pipeline import evidence as evidence_module
from forebay.pipeline.evidence import OTHERS_MIN, Evidence, FailureHistory
from forebay.pipeline.gate import judge
from forebay.pipeline.group import Bulk, Group
from forebay.pipeline.settlement import settle
from unit.pipeline.fakes import DEAD, FAILED, FAULTY, PAUSE, REFUSED, RETRY, make_entry, make_group

OCTOBER, NOVEMBER = "2026-10", "2026-11"


def refusal(status: int) -> Outcome:
    return Outcome(Verdict.REFUSED, "strange_exception", "no", status=status)


class Sink:
    """Bulks one after the other, and the dead letters among their events."""

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
def test_only_a_created_event_is_evidence(sink: Sink, outcome: Outcome) -> None:
    for _ in range(5):
        (refused, _) = sink.deliver((bad(sink), refusal(400)), (good(), outcome))
        assert not refused.is_own


def test_an_event_taken_into_another_index_is_no_evidence(sink: Sink) -> None:
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


def test_for_an_event_never_refused_nothing_taken_before_is_evidence(sink: Sink) -> None:
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


def test_the_same_refusal_of_a_request_again_says_nothing_about_the_sink_once_it_was_the_events_own(sink: Sink) -> None:
    forbidden = structs.replace(refusal(403), whole=True)
    (first,) = sink.deliver((bad(sink), forbidden))
    assert not first.is_own
    sink.deliver((good(), DELIVERED))
    (second,) = sink.deliver((bad(sink), forbidden))
    assert (second.is_own, second.is_struck) == (True, True)
    for _ in range(20):
        sink.evidence.rounds += 1
        (again,) = sink.deliver((bad(sink), forbidden))
        assert judge([again]) is None
        assert (again.verdict, again.is_struck) == (Verdict.REFUSED, False)
    (another,) = sink.deliver((bad(sink), structs.replace(forbidden, status=401)))
    assert not another.is_own


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


def test_an_event_sent_in_another_form_is_kept_and_dies_as_it_came(sink: Sink) -> None:
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


# -- poison


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
    monkeypatch.setattr(evidence_module, "FAILED_ROWS_MAX", 3)
    failures = FailureHistory()
    for row_id in (1, 2, 3, 1, 4):
        failures.note_failure(row_id)
    failures.taken += 1
    assert [failures.count_failure(row_id, is_single=False) for row_id in (1, 3, 4)] == [1, 1, 1]
    assert not failures.count_failure(2, is_single=False), "forgotten, as the one whose failure is longest ago"
