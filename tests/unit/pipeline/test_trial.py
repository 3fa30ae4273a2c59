"""What an interrupted run left is delivered with a strike, and a suspect while the sink is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from forebay.pipeline.gate import Gate, judge
from forebay.pipeline.trial import Trial
from unit.pipeline.fakes import FAILED


@dataclass
class FakeStore:
    """A `TrialStore` that writes down what it was told."""

    last_group_id: int = 7
    was_interrupted: bool = True
    strikes: list[list[int]] = field(default_factory=list)

    async def strike(self, group_ids: Sequence[int]) -> None:
        self.strikes.append(list(group_ids))


async def test_what_an_interrupted_run_left_goes_with_a_strike_and_nothing_newer() -> None:
    store = FakeStore()
    assert await Trial(store, Gate(3, 1, 2)).begin([5, 7, 8]) == {5, 7}
    assert store.strikes == [[5, 7]]


async def test_without_an_interruption_nothing_does() -> None:
    store = FakeStore(was_interrupted=False)
    assert await Trial(store, Gate(3, 1, 2)).begin([5, 7, 8]) == set()
    assert store.strikes == []


async def test_a_suspect_does_whoever_left_it() -> None:
    store = FakeStore(was_interrupted=False)
    assert await Trial(store, Gate(3, 1, 2)).begin_alone(8)
    assert store.strikes == [[8]]


async def test_while_the_sink_is_not_well_a_suspect_does_not_and_what_an_interrupted_run_left_does() -> None:
    store, gate = FakeStore(), Gate(3, 1, 2)
    gate.leave(await gate.enter(), judge([FAILED]), 0.02)
    trial = Trial(store, gate)
    assert not await trial.begin_alone(5)
    assert store.strikes == []
    assert await trial.begin([5]) == {5}
