"""Whoever has news for redelivery says how soon it goes, and how far."""

from __future__ import annotations

import asyncio

import pytest

from forebay.pipeline.wake import SOON_S, Wake
from unit.pipeline.fakes import Clock, settle_down


class TimedWake(Wake):
    """A wake-up whose time stands still until it is moved."""

    def __init__(self, interval_s: float = 3600) -> None:
        self.clock = Clock()
        super().__init__(interval_s, self.clock.loop)

    async def is_heard(self) -> bool:
        waiting = asyncio.create_task(self.wait())
        await settle_down()
        was_heard = waiting.done()
        waiting.cancel()
        return was_heard


@pytest.fixture
async def wake() -> TimedWake:
    return TimedWake()


async def test_a_whole_pass_begins_at_once(wake: TimedWake) -> None:
    wake.pass_now()
    assert (wake.passes, wake.is_whole) == (1, True)
    assert await wake.is_heard()
    assert not await wake.is_heard(), "once"


async def test_events_that_overflowed_are_looked_for_without_a_new_pass(wake: TimedWake) -> None:
    wake.go_on()
    assert wake.passes == 0
    assert await wake.is_heard()


async def test_an_early_pass_begins_after_a_while_once_however_often_it_was_asked_for(wake: TimedWake) -> None:
    for _ in range(3):
        wake.pass_soon()
    await wake.clock.advance(SOON_S - 0.1)
    assert not await wake.is_heard()
    await wake.clock.advance(0.1)
    assert await wake.is_heard()
    assert (wake.passes, wake.is_whole) == (1, False)

    wake.pass_soon()
    await wake.clock.advance(SOON_S)
    assert wake.passes == 2


async def test_an_early_pass_waits_no_longer_than_the_next_round() -> None:
    wake = TimedWake(interval_s=0.5)
    wake.pass_soon()
    await wake.clock.advance(0.5)
    assert wake.passes == 1


async def test_of_a_sink_that_is_not_well_no_early_pass_is_made(wake: TimedWake) -> None:
    wake.is_sink_well = False
    wake.pass_soon()
    await wake.clock.advance(SOON_S)
    assert wake.passes == 0
