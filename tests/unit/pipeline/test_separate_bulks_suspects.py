"""The next step with a suspect follows from its strikes."""

from __future__ import annotations

import pytest

from forebay.history import History
from forebay.pipeline.evidence import FAILURES_MAX
from forebay.pipeline.separate_bulks import Step, next_step
from forebay.pipeline.settlement import halve
from unit.pipeline.fakes import make_entries, make_group, until
from unit.pipeline.redelivery_bench import Bench, FakeStore, take_up


@pytest.mark.parametrize(
    ("strikes", "events", "step"),
    [
        (0, 1, Step.WITH_OTHERS),
        (2, 1000, Step.WITH_OTHERS),
        (3, 1000, Step.ALONE),
        (4, 1000, Step.HALVE),
        (4, 2, Step.HALVE),
        (3, 1, Step.ALONE),
        (5, 1, Step.ALONE),
        (6, 1, Step.BURY),
        (9, 1, Step.BURY),
    ],
)
def test_the_next_step_follows_from_strikes(strikes: int, events: int, step: Step) -> None:
    assert next_step(History(strikes=strikes), events) is step


def test_halves_are_suspect_and_not_tried_yet() -> None:
    history = History(9, (1, 2, 3), strikes=4, refusals=1, refused_status=400)
    settlement = halve(make_group(make_entries(4), 7, history), iter((8, 9)).__next__)
    (first, second) = (row.history for row in settlement.transaction.inserts)
    assert first == second == History(9, (1, 2, 3), strikes=FAILURES_MAX, refusals=1, refused_status=400)
    assert next_step(first, 500) is next_step(first, 1) is Step.ALONE


async def test_a_suspect_that_was_taken_up_while_it_was_read_does_not_go_twice() -> None:
    store = FakeStore()
    store.add(1, make_entries(1), History(3, (1,), strikes=3))
    bench = Bench(store)
    assert bench.suspects.set_apart(store.groups[1])
    store.during_load = lambda: take_up(bench, store.groups[1])
    # It may go: the sink has taken another bulk.
    bench.evidence.failures.taken = 1
    async with bench.running(bench.suspects.run()):
        await until(lambda: not bench.ledger.set_apart)

    assert store.loads
    assert bench.counters.bulks == 0
    assert bench.ledger.pending_events == 0
