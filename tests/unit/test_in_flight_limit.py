"""How many bulks go at once follows what the sink takes, and not the noise around it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from forebay.in_flight_limit import START, InFlightLimit


class Simulation:
    """A sink of a certain capacity that gets as many bulks at once as the limit allows.

    Attributes:
        capacity: how many bulks it works on at once; more of them share it, and take longer.
        seconds: what a bulk takes there alone.
        refuses_from: with how many in flight it refuses one more (429).
    """

    def __init__(
        self,
        most: int = 10,
        capacity: float = 100,
        seconds: Callable[[], float] = lambda: 0.1,
        refuses_from: int = 1000,
    ) -> None:
        self.limit = InFlightLimit(most)
        self.capacity = capacity
        self.seconds = seconds
        self.refuses_from = refuses_from
        self.refused = 0
        self._now = 0.0
        self._generation = 0
        self._under_way: list[tuple[float, int, float, int, bool]] = []
        self._number = 0

    def run(self, bulks: int) -> list[int]:
        """Send bulks, always as many at once as may be; return the limit after each."""
        limits = []
        for _ in range(bulks):
            while len(self._under_way) < self.limit.value:
                self._send()
            self._now, _, seconds, permit, refused = heapq.heappop(self._under_way)
            generation, in_flight = divmod(permit, 1000)
            if generation == self._generation:
                self._generation += self._learn(in_flight, seconds, refused=refused)
            limits.append(self.limit.value)
        return limits

    def _learn(self, in_flight: int, seconds: float, *, refused: bool) -> bool:
        """Let the limit learn from a bulk; return whether that lowered it."""
        before = self.limit.value
        if refused:
            self.limit.lower()
        else:
            self.limit.learn(in_flight, seconds)
        return self.limit.value < before

    def _send(self) -> None:
        in_flight = len(self._under_way) + 1
        refused = in_flight > self.refuses_from
        self.refused += refused
        seconds = 0.005 if refused else self.seconds() * max(1.0, in_flight / self.capacity)
        self._number += 1
        permit = self._generation * 1000 + in_flight
        heapq.heappush(self._under_way, (self._now + seconds, self._number, seconds, permit, refused))


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.3])
def test_it_reaches_the_top_within_a_few_bulks_where_all_is_well(seconds: float) -> None:
    simulation = Simulation(seconds=lambda: seconds)
    assert simulation.limit.value == START
    assert simulation.run(8)[-1] == 10


@pytest.mark.parametrize("seed", range(5))
def test_it_stays_at_the_top_through_noise(seed: int) -> None:
    noise = random.Random(seed)
    limits = Simulation(seconds=lambda: 0.02 + noise.expovariate(1 / 0.1)).run(2000)
    assert sum(limits) / len(limits) > 9


def test_a_sink_that_gets_faster_together_is_not_taken_for_a_slow_one() -> None:
    # Measured on OpenSearch: ten bulks at once take less than twice as long as four, and more events go through.
    simulation = Simulation(capacity=6, seconds=lambda: 0.3)
    assert simulation.run(200)[-1] == 10


def test_a_refusal_halves_it() -> None:
    limit = InFlightLimit(10)
    for _ in range(6):
        limit.learn(limit.value, 0.1)
    assert limit.value == 10
    values = []
    for _ in range(4):
        limit.lower()
        values.append(limit.value)
    assert values == [5, 2, 1, 1]


def test_after_a_refusal_it_grows_by_one_in_several_rounds() -> None:
    limit = InFlightLimit(10)
    limit.lower()
    values = []
    for _ in range(300):
        limit.learn(limit.value, 0.1)
        values.append(limit.value)
    assert [values.count(value) for value in (2, 3, 4)] == pytest.approx([18, 27, 35], abs=3)
    assert values[-1] >= 7


def test_a_sink_that_refuses_is_not_asked_for_much_more_than_it_takes() -> None:
    simulation = Simulation(refuses_from=5)
    limits = simulation.run(1000)
    assert simulation.refused < 50
    assert 3 <= sum(limits[100:]) / len(limits[100:]) <= 6


def test_it_backs_off_as_bulks_take_longer_and_recovers() -> None:
    simulation = Simulation(seconds=lambda: 0.1)
    simulation.run(100)
    assert simulation.limit.value == 10

    simulation.seconds = lambda: 0.5
    assert min(simulation.run(60)) <= 6

    simulation.seconds = lambda: 0.1
    assert simulation.run(200)[-1] == 10


def test_what_stays_slow_becomes_what_is_usual() -> None:
    simulation = Simulation(seconds=lambda: 0.1)
    simulation.run(100)
    simulation.seconds = lambda: 0.5
    assert simulation.run(400)[-1] == 10


def test_slowness_alone_never_takes_it_below_what_any_sink_takes() -> None:
    simulation = Simulation(seconds=lambda: 0.1)
    simulation.run(100)
    growing = iter(range(1, 100_000))
    simulation.seconds = lambda: 0.1 * 1.05 ** next(growing)
    assert min(simulation.run(150)) == START


def test_a_limit_that_is_not_in_use_does_not_grow() -> None:
    limit = InFlightLimit(10)
    for _ in range(100):
        limit.learn(1, 0.1)
    assert limit.value == START


def test_small_bulks_of_quiet_times_do_not_make_full_ones_look_slow() -> None:
    limit = InFlightLimit(10)
    for _ in range(100):
        limit.learn(1, 0.005)
    for _ in range(20):
        before = limit.value
        limit.learn(limit.value, 0.3)
        assert limit.value >= before
    assert limit.value == 10


def test_after_the_sink_was_away_it_begins_small_and_grows_fast() -> None:
    simulation = Simulation()
    simulation.run(50)
    simulation.limit.restart()
    assert simulation.limit.value == START
    assert simulation.run(20)[-1] == 10


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_small_most_is_kept(most: int) -> None:
    simulation = Simulation(most=most)
    assert set(simulation.run(50)) == {most}
