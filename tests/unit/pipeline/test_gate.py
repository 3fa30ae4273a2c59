"""After a failure one bulk at a time asks whether the sink is back, with growing pauses."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from msgspec import structs

from forebay.backoff import Backoff
from forebay.model import DELIVERED, DROPPED, DUPLICATE, Outcome, Verdict
from forebay.pipeline.gate import WELL, Gate, Health, Permit, Report
from unit.pipeline.fakes import DEAD, FAULTY, PAUSE, RETRY, Clock, RecordingWake, report, settle_down


def failed(reason: str) -> Report:
    return Report(Health.FAILED, failed=Outcome(Verdict.RETRY, "unreachable", reason, whole=True))


FAILED = failed("no answer in time")
BUSY = Report(Health.FAILED, is_busy=True, failed=RETRY)
PAUSED = Report(Health.PAUSED, failed=PAUSE)
WHOLE_PAUSE = Outcome(Verdict.PAUSE, "security_exception", "no permissions", "look at the role", whole=True)
WHOLE_FAULTY = structs.replace(FAULTY, whole=True)


class TimedGate:
    """A gate whose time stands still until it is moved."""

    def __init__(self, workers: int = 3, delay_s_min: float = 1, delay_s_max: float = 30, early_s: float = 0) -> None:
        self.clock = Clock(early_s)
        self.jitters: list[tuple[float, float]] = []
        self.wake = RecordingWake()
        self.has_events = True
        backoff = Backoff(delay_s_min, delay_s_max, self._jitter)
        self.gate = Gate(workers, backoff, self.wake, lambda: self.has_events, self.clock.loop)

    def _jitter(self, least: float, most: float) -> float:
        self.jitters.append((least, most))
        return most

    async def enter(self) -> Permit:
        return await asyncio.wait_for(self.gate.enter(), 1)

    async def fail(self) -> None:
        """Send a bulk that fails, and wait until the next may go."""
        self.gate.leave(await self.enter(), FAILED, 0.02)
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
    permits = [await timed.enter() for _ in range(3)]

    waiting = asyncio.create_task(timed.gate.enter())
    await settle_down()
    assert not waiting.done()

    timed.gate.leave(permits[0], WELL, 0.02)
    await asyncio.wait_for(waiting, 1)


async def test_a_waiting_bulk_that_is_cancelled_takes_no_place() -> None:
    timed = TimedGate(workers=1)
    permit = await timed.enter()
    assert await timed.is_shut()

    timed.gate.leave(permit, WELL, 0.02)
    await timed.enter()


async def test_after_a_failure_nothing_goes_until_the_back_off_is_over() -> None:
    timed = TimedGate(delay_s_min=2)
    timed.gate.leave(await timed.enter(), failed("unreachable"), 0.02)

    assert timed.gate.health is Health.FAILED
    assert timed.gate.failed == failed("unreachable").failed
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
    await timed.fail()
    assert timed.wake.heard == []

    timed.gate.leave(await timed.enter(), WELL, 0.02)

    assert timed.wake.heard == ["now"]
    assert timed.gate.health is Health.GOOD
    assert timed.gate.failed is None
    permits = [await timed.enter() for _ in range(3)]
    for permit in permits:
        timed.gate.leave(permit, WELL, 0.02)
    assert timed.wake.heard == ["now"], "the gate was open already"


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
    timed.gate.leave(await timed.enter(), WELL, 0.02)

    await timed.fail()
    assert timed.jitters[-1] == (0.5, 1)


async def test_a_sink_that_refuses_everything_is_asked_less_and_less_often() -> None:
    # It may have been one event that it refuses.
    timed = TimedGate(delay_s_min=1, delay_s_max=30)
    for _ in range(6):
        timed.gate.leave(await timed.enter(), PAUSED, 0.02)
        assert timed.gate.health is Health.PAUSED
        await timed.clock.advance(30)
    assert [longest for _, longest in timed.jitters] == [1, 2, 4, 8, 16, 30]


@pytest.mark.parametrize("report", [WELL, FAILED, BUSY])
async def test_a_bulk_sent_before_a_failure_says_nothing_about_now(report: Report) -> None:
    timed = TimedGate(workers=3)
    first, second, third = [await timed.enter() for _ in range(3)]
    timed.gate.leave(first, failed("first"), 0.02)

    timed.gate.leave(second, report, 0.02)
    timed.gate.leave(third, report, 0.02)

    assert timed.gate.health is Health.FAILED
    assert timed.gate.failed == failed("first").failed
    assert timed.jitters == [(0.5, 1)], "ten bulks that fail together are one failure"
    assert timed.wake.heard == []
    assert await timed.is_shut()


async def test_the_probe_waits_for_bulks_that_are_still_under_way() -> None:
    timed = TimedGate(workers=3)
    first, slow = await timed.enter(), await timed.enter()
    timed.gate.leave(first, FAILED, 0.02)
    await timed.clock.advance(1)
    waiting = asyncio.create_task(timed.gate.enter())
    await settle_down()
    assert not waiting.done()

    timed.gate.leave(slow, FAILED, 0.02)
    await asyncio.wait_for(waiting, 1)


async def test_a_timer_that_comes_early_ends_the_back_off_all_the_same() -> None:
    timed = TimedGate(delay_s_min=1, early_s=0.0005)
    timed.gate.leave(await timed.enter(), FAILED, 0.02)
    waiting = asyncio.create_task(timed.gate.enter())
    await settle_down()

    await timed.clock.advance(0.9996)
    assert timed.clock.waiting == []
    assert waiting.done()


def test_no_back_off_is_endless_in_the_servers_event_loop() -> None:
    # Its clock counts whole milliseconds, so that a timer can seem to come too early.
    async def fail_and_wait() -> None:
        gate = Gate(1, Backoff(0.02, 0.04), RecordingWake(), lambda: True, asyncio.get_running_loop())
        gate.leave(await gate.enter(), FAILED, 0.02)
        await gate.enter()

    async def fail_often() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(fail_and_wait())
                await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fail_often())


async def test_a_busy_sink_gets_half_as_many_at_once_and_no_pause() -> None:
    timed = TimedGate(workers=10)
    permits = [await timed.enter() for _ in range(4)]

    timed.gate.leave(permits[0], BUSY, 0.02)

    assert timed.gate.in_flight_max == 2
    assert timed.gate.health is Health.GOOD
    assert timed.jitters == []
    for permit in permits[1:]:
        timed.gate.leave(permit, BUSY, 0.02)
    assert timed.gate.in_flight_max == 2, "bulks sent before say nothing about fewer"


async def test_a_sink_too_busy_for_one_bulk_gets_none_until_a_back_off_is_over() -> None:
    timed = TimedGate(workers=10, delay_s_min=2)
    for left in (2, 1):
        timed.gate.leave(await timed.enter(), BUSY, 0.02)
        assert timed.gate.in_flight_max == left

    timed.gate.leave(await timed.enter(), BUSY, 0.02)

    assert timed.gate.health is Health.FAILED
    assert await timed.is_shut()
    await timed.clock.advance(2)
    timed.gate.leave(await timed.enter(), WELL, 0.02)
    assert timed.gate.in_flight_max == 1, "it was too much, and grows from there"


async def test_a_bulk_of_which_a_part_was_refused_for_being_busy_halves_the_bulks_in_flight() -> None:
    timed = TimedGate(workers=4)
    timed.gate.leave(await timed.enter(), report([DELIVERED, RETRY]), 0.02)
    assert timed.gate.in_flight_max == 2
    assert timed.gate.health is Health.GOOD


async def test_more_bulks_go_at_once_as_long_as_all_is_well() -> None:
    timed = TimedGate(workers=10)
    assert timed.gate.in_flight_max == 4
    for _ in range(3):
        permits = [await timed.enter() for _ in range(timed.gate.in_flight_max)]
        for permit in permits:
            timed.gate.leave(permit, WELL, 0.2)
    assert timed.gate.in_flight_max == 10


async def test_only_a_bulk_that_goes_to_see_is_a_probe() -> None:
    timed = TimedGate()
    permit = await timed.enter()
    assert not permit.is_probe
    timed.gate.leave(permit, FAILED, 0.02)
    await timed.clock.advance(1)
    probe = await timed.enter()
    assert probe.is_probe
    timed.gate.leave(probe, WELL, 0.02)
    assert not (await timed.enter()).is_probe


@pytest.mark.parametrize("has_events", [False, True])
async def test_at_the_end_of_a_back_off_redelivery_seeks_a_probe_if_no_other_event_waits(*, has_events: bool) -> None:
    timed = TimedGate(delay_s_min=1)
    timed.has_events = has_events
    timed.gate.leave(await timed.enter(), FAILED, 0.02)
    await timed.clock.advance(0.9)
    assert timed.wake.heard == []
    await timed.clock.advance(0.1)
    assert timed.wake.heard == ["now"] * (not has_events)
    assert timed.wake.is_probe_wanted is not has_events
    await timed.enter()
    assert not timed.wake.is_probe_wanted


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
        ([RETRY, PAUSE], Health.FAILED),
        ([PAUSE], Health.GOOD),
        ([WHOLE_PAUSE], Health.PAUSED),
        ([WHOLE_PAUSE, RETRY], Health.PAUSED),
        ([WHOLE_PAUSE, DELIVERED], Health.GOOD),
        ([FAULTY, FAULTY], Health.GOOD),
        ([FAULTY, PAUSE], Health.GOOD),
        ([FAULTY, RETRY], Health.FAILED),
        ([WHOLE_FAULTY], Health.PAUSED),
        ([WHOLE_FAULTY, FAULTY], Health.PAUSED),
        ([WHOLE_FAULTY, DROPPED], Health.GOOD),
    ],
)
def test_one_event_that_was_settled_shows_that_the_sink_works(outcomes: list[Outcome], health: Health) -> None:
    assert report(outcomes).health is health


@pytest.mark.parametrize(
    ("outcomes", "first"),
    [
        ([DELIVERED, RETRY, PAUSE], RETRY),
        ([DELIVERED, PAUSE, RETRY], PAUSE),
        ([PAUSE, WHOLE_PAUSE], WHOLE_PAUSE),
        ([PAUSE, RETRY], RETRY),
        ([DELIVERED, DUPLICATE, DEAD], None),
        ([FAULTY, WHOLE_FAULTY], WHOLE_FAULTY),
        ([FAULTY, RETRY], RETRY),
    ],
)
def test_a_finding_names_why_not_everything_was_settled(outcomes: list[Outcome], first: Outcome | None) -> None:
    assert report(outcomes).failed is first


async def test_something_that_was_taken_past_the_gate_opens_it() -> None:
    timed = TimedGate(delay_s_min=1)
    under_way = await timed.enter()
    timed.gate.leave(await timed.enter(), FAILED, 0.02)

    timed.gate.reopen()
    timed.gate.reopen()

    assert timed.gate.health is Health.GOOD
    assert timed.wake.heard == ["now"]
    assert timed.clock.waiting == [], "no rest is left to be ended"
    timed.gate.leave(under_way, FAILED, 0.02)
    assert timed.gate.health is Health.GOOD, "it was sent before"


async def test_who_turns_back_leaves_the_place_to_others() -> None:
    timed = TimedGate(workers=1)
    await timed.enter()
    assert await timed.is_shut()
    timed.gate.leave_unused()
    await timed.enter()
