"""After a failure one bulk at a time asks whether the sink is back, with growing pauses."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from forebay.model import DELIVERED, DUPLICATE, Outcome
from forebay.pipeline.gate import Gate, Health, judge
from unit.pipeline.fakes import DEAD, PAUSE, RETRY, Clock, settle_down


class TimedGate:
    """A gate whose time stands still until it is moved."""

    def __init__(self, workers: int = 3, delay_s_min: float = 1, delay_s_max: float = 30, early_s: float = 0) -> None:
        self.clock = Clock(early_s)
        self.jitters: list[tuple[float, float]] = []
        self.gate = Gate(workers, delay_s_min, delay_s_max, self._jitter)
        self.gate._loop = self.clock.loop

    def _jitter(self, least: float, most: float) -> float:
        self.jitters.append((least, most))
        return most

    async def enter(self) -> int:
        return await asyncio.wait_for(self.gate.enter(), 1)

    async def fail(self, health: Health = Health.FAILED) -> None:
        """Send a bulk that fails, and wait until the next may go."""
        self.gate.leave(await self.enter(), health, "cause")
        await self.clock.advance(self.jitters[-1][1])

    async def is_shut(self) -> bool:
        entering = asyncio.create_task(self.gate.enter())
        await settle_down()
        if entering.done():
            return False
        entering.cancel()
        return True


async def test_as_many_bulks_go_as_there_are_workers() -> None:
    timed = TimedGate(workers=3)
    tickets = [await timed.enter() for _ in range(3)]

    waiting = asyncio.create_task(timed.gate.enter())
    await settle_down()
    assert not waiting.done()

    timed.gate.leave(tickets[0], Health.GOOD)
    await asyncio.wait_for(waiting, 1)


async def test_a_waiting_bulk_that_is_cancelled_takes_no_place() -> None:
    timed = TimedGate(workers=1)
    ticket = await timed.enter()
    assert await timed.is_shut()

    timed.gate.leave(ticket, Health.GOOD)
    await timed.enter()


async def test_after_a_failure_nothing_goes_until_the_back_off_is_over() -> None:
    timed = TimedGate(delay_s_min=2)
    timed.gate.leave(await timed.enter(), Health.FAILED, "unreachable")

    assert timed.gate.health is Health.FAILED
    assert timed.gate.cause == "unreachable"
    await timed.clock.advance(1.99)
    assert await timed.is_shut()
    await timed.clock.advance(0.01)
    await timed.enter()


async def test_after_the_back_off_one_bulk_goes_as_a_probe() -> None:
    timed = TimedGate(workers=3)
    await timed.fail()

    await timed.enter()
    assert await timed.is_shut()
    await timed.clock.advance(3600)
    assert await timed.is_shut()


async def test_a_good_probe_opens_the_gate_and_says_so_once() -> None:
    timed = TimedGate(workers=3)
    reopened: list[bool] = []
    timed.gate.on_reopened = lambda: reopened.append(True)
    await timed.fail()
    assert reopened == []

    timed.gate.leave(await timed.enter(), Health.GOOD)

    assert reopened == [True]
    assert timed.gate.health is Health.GOOD
    assert timed.gate.cause == ""
    tickets = [await timed.enter() for _ in range(3)]
    for ticket in tickets:
        timed.gate.leave(ticket, Health.GOOD)
    assert reopened == [True], "the gate was open already"


async def test_the_back_off_doubles_up_to_its_cap() -> None:
    timed = TimedGate(delay_s_min=1, delay_s_max=10)
    for _ in range(6):
        await timed.fail()

    assert [most for _, most in timed.jitters] == [1, 2, 4, 8, 10, 10]


async def test_the_back_off_has_jitter_of_a_half_to_the_whole() -> None:
    timed = TimedGate(delay_s_min=1, delay_s_max=10)
    for _ in range(3):
        await timed.fail()

    assert timed.jitters == [(0.5, 1), (1, 2), (2, 4)]


async def test_a_week_of_failures_is_no_number_too_large() -> None:
    timed = TimedGate(delay_s_min=0.001, delay_s_max=1e300)
    for _ in range(2000):
        await timed.fail()

    assert timed.jitters[-1][1] == 0.001 * 2**32


async def test_the_back_off_begins_small_again_after_the_sink_was_well() -> None:
    timed = TimedGate(delay_s_min=1)
    for _ in range(4):
        await timed.fail()
    timed.gate.leave(await timed.enter(), Health.GOOD)

    await timed.fail()
    assert timed.jitters[-1] == (0.5, 1)


async def test_a_sink_that_needs_an_operator_is_asked_as_seldom_as_the_cap_allows() -> None:
    timed = TimedGate(delay_s_min=1, delay_s_max=30)
    timed.gate.leave(await timed.enter(), Health.PAUSED, "read-only")

    assert timed.gate.health is Health.PAUSED
    assert timed.jitters == [(15, 30)]
    await timed.clock.advance(29)
    assert await timed.is_shut()
    await timed.clock.advance(1)
    await timed.enter()


@pytest.mark.parametrize("health", [Health.GOOD, Health.FAILED])
async def test_what_was_sent_before_a_failure_says_nothing_about_now(health: Health) -> None:
    timed = TimedGate(workers=3)
    reopened: list[bool] = []
    timed.gate.on_reopened = lambda: reopened.append(True)
    first, second, third = [await timed.enter() for _ in range(3)]
    timed.gate.leave(first, Health.FAILED, "first")

    timed.gate.leave(second, health, "second")
    timed.gate.leave(third, health, "third")

    assert timed.gate.health is Health.FAILED
    assert timed.gate.cause == "first"
    assert timed.jitters == [(0.5, 1)], "ten bulks that fail together are one failure"
    assert reopened == []
    assert await timed.is_shut()


async def test_the_probe_waits_for_bulks_that_are_still_under_way() -> None:
    timed = TimedGate(workers=3)
    first, slow = await timed.enter(), await timed.enter()
    timed.gate.leave(first, Health.FAILED)
    await timed.clock.advance(1)
    waiting = asyncio.create_task(timed.gate.enter())
    await settle_down()
    assert not waiting.done()

    timed.gate.leave(slow, Health.FAILED)
    await asyncio.wait_for(waiting, 1)


async def test_a_timer_that_comes_early_ends_the_back_off_all_the_same() -> None:
    timed = TimedGate(delay_s_min=1, early_s=0.0005)
    timed.gate.leave(await timed.enter(), Health.FAILED)
    waiting = asyncio.create_task(timed.gate.enter())
    await settle_down()

    await timed.clock.advance(0.9996)
    assert timed.clock.waiting == []
    assert waiting.done()


def test_no_back_off_is_endless_in_the_servers_event_loop() -> None:
    # Its clock counts whole milliseconds, so that a timer can seem to come too early.
    async def fail_and_wait() -> None:
        gate = Gate(1, 0.02, 0.04)
        gate.leave(await gate.enter(), Health.FAILED)
        await gate.enter()

    async def fail_often() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(fail_and_wait())
                await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fail_often())


@pytest.mark.parametrize(
    ("outcomes", "health"),
    [
        ([DELIVERED, DELIVERED], Health.GOOD),
        ([DUPLICATE], Health.GOOD),
        ([DEAD], Health.GOOD),
        ([RETRY, DELIVERED], Health.GOOD),
        ([PAUSE, RETRY, DUPLICATE], Health.GOOD),
        ([PAUSE, DEAD], Health.GOOD),
        ([RETRY, RETRY], Health.FAILED),
        ([RETRY, PAUSE], Health.PAUSED),
        ([PAUSE], Health.PAUSED),
    ],
)
def test_one_event_that_was_settled_shows_that_the_sink_works(outcomes: list[Outcome], health: Health) -> None:
    assert judge(outcomes) is health
