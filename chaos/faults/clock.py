"""The clock of the server: a month ends, or it jumps back. Debian's `faketime` lets only this process see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chaos.faults.opensearch import make_clashing, map_label_as_number
from chaos.faults.refusals import wait_buried
from chaos.load import find_month, make_plain
from chaos.rows import Backend, Row
from chaos.scale import Scale
from chaos.stage import Stage
from forebay.intake.month import uuid7_time_ms
from testbed.traffic.events import Event, make_event

HOUR_S = 3600
REPEATED = 200
LOOSE = "loose-"
BEFORE_S = 20.0
AROUND_S = 60

DAY_S = 24 * HOUR_S
BORDER_S = 31 * DAY_S
BORDER_AROUND_S = 2.5
BORDER_AGAIN_S = 4.0
FAR_AHEAD_S = 45 * DAY_S
"""Longer than the retention of dead letters."""

WAITING_EVENTS = 500


class NoFaketime(Exception):
    """The library that shows a process another clock is not installed."""


def _next_month() -> float:
    now = datetime.now(UTC)
    return (
        (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1).timestamp()
    )


MIDNIGHT = _next_month()
"""The end of this month, by the seconds of `time.time`."""


def set_clock(folder: Path, ahead_s: float) -> None:
    """Put the clock of the server so many seconds ahead of the machine's."""
    waiting = folder / "clock.new"
    waiting.write_text(f"{ahead_s:+.3f}\n")
    # In one step: the server reads the file whenever it looks at the clock.
    waiting.rename(folder / "clock")


@contextlib.contextmanager
def own_clock(folder: Path, scale: Scale) -> Iterator[dict[str, str]]:
    """Give the server a clock that a fault can set (`NoFaketime` if that cannot be); it starts right."""
    del scale
    yield give_clock(folder)


def give_clock(folder: Path) -> dict[str, str]:
    """Return the settings by which a server in this folder has a clock of its own; it starts right.

    Raises:
        NoFaketime: the library is not there.
    """
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
    if library is None:
        raise NoFaketime("the clock of a process cannot be set without Debian's package faketime")
    set_clock(folder, 0)
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
        "FAKETIME_NO_CACHE": "1",
        # Time-outs and intervals are measured by another clock, which no jump changes.
        "DONT_FAKE_MONOTONIC": "1",
        # Else a thread that waits for Python's lock wakes up at once, again and again.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }


@contextlib.contextmanager
def clock_before_midnight(folder: Path, scale: Scale) -> Iterator[dict[str, str]]:
    """Give the server a clock at which the month is nearly over."""
    with own_clock(folder, scale) as settings:
        set_clock(folder, MIDNIGHT - BEFORE_S - time.time())
        yield settings


async def end_month(stage: Stage) -> None:
    """Let the month end: with requests in hand, events that wait, and clients that send again afterwards."""
    anchored = [make_around_midnight(-number, with_id=True) for number in range(1, REPEATED + 1)]
    loose = [{"page": "/loose", "event": "view", "log_id": f"{LOOSE}{number}"} for number in range(REPEATED)]
    client = stage.load.client
    async with client.session() as session:
        await client.insist(session, anchored)
        await client.insist(session, loose)
        await asyncio.to_thread(stage.proxy.refuse)
        set_clock(stage.server.folder, MIDNIGHT - 1 - time.time())
        await asyncio.sleep(0.5)
        await asyncio.to_thread(stage.server.stop)
        await stage.start_server()
        set_clock(stage.server.folder, MIDNIGHT + 1 - time.time())
        await client.insist(session, anchored)
        await client.insist(session, loose)
        await asyncio.to_thread(stage.proxy.accept)


async def jump_back(stage: Stage) -> None:
    """Put the clock back by an hour while events come in."""
    set_clock(stage.server.folder, -HOUR_S)
    await asyncio.sleep(max(1, stage.scale.fault_s))


async def send_late_again(stage: Stage) -> None:
    """Send events whose own time is a month from now, and the same once more a little later."""
    now_s = time.time()
    events = [
        make_far(number, now_s + sign * BORDER_S + BORDER_AROUND_S * (2 * number / REPEATED - 1))
        for sign in (-1, 1)
        for number in range(1, REPEATED + 1)
    ]
    client = stage.load.client
    async with client.session() as session:
        await client.insist(session, events)
        # An event that is near enough to the clock at one time and too far from it at the other has passed the border.
        await asyncio.sleep(BORDER_AGAIN_S)
        await client.insist(session, events)


def make_far(number: int, now_s: float) -> Event:
    """Make an event of a client whose clock shows `now_s`; its own time is that, to the millisecond."""
    event = make_event(number, now_s=now_s) | {"timestamp": int(now_s * 1000)}
    # Two have one number, a month behind and a month ahead of now.
    return event if uuid7_time_ms(event["log_id"]) else event | {"log_id": f"{event['log_id']} {now_s}"}


def find_far_month(event: Event) -> str | None:
    """Return the month of the index that an event must be in; None for one of a client whose clock is ahead."""
    is_ahead = (
        max(event.get("timestamp", 0), uuid7_time_ms(event.get("log_id", "")) or 0) > (time.time() + DAY_S) * 1000
    )
    return None if is_ahead else find_month(event)


async def jump_far(stage: Stage) -> None:
    """Put the clock far ahead and back again, with dead letters, with events that wait, and with a start in between."""
    await stage.wait_logged("dead_letters")
    events = [make_dated(number, with_id=True) for number in range(-REPEATED, 0)]
    client, folder = stage.load.client, stage.server.folder
    async with client.session() as session:
        await client.insist(session, events)
        await asyncio.to_thread(stage.proxy.refuse)
        await stage.load.wait_accepted(WAITING_EVENTS)
        for ahead_s in (FAR_AHEAD_S, 0):
            set_clock(folder, ahead_s)
            await client.insist(session, events)
            await asyncio.to_thread(stage.server.stop)
            # Looks at once for dead letters that are old enough.
            await stage.start_server()
            await client.insist(session, events)
            await asyncio.sleep(stage.scale.fault_s)
        await asyncio.to_thread(stage.proxy.accept)
    await wait_buried(stage)


def make_dated(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event that has a time of its own; some do not fit the mapping of the trial.

    Not those without a `log_id`: while the clock is ahead they are in the index of a month that gets nothing later, and
    there is no evidence against them.
    """
    event = {"timestamp": int(time.time() * 1000)} | make_clashing(number, with_id)
    if not with_id:
        event.pop("label", None)
    return event


def make_around_midnight(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event of a client whose clock is a little before or behind the end of the month.

    If it has a `log_id`, that is a UUIDv7, or it has a `timestamp`: so it is the same event whenever it is sent.
    """
    now_s = MIDNIGHT + number * 7 % (2 * AROUND_S) - AROUND_S
    event = make_event(number, with_id=with_id, now_s=now_s)
    return {"timestamp": int(now_s * 1000)} | event


ROWS: Sequence[Row] = (
    Row(
        "month",
        "a month ends, with requests in hand, events that wait, and clients that send again",
        end_month,
        backend=Backend.PROXY,
        prepare=clock_before_midnight,
        make=make_around_midnight,
        prose="""\
An event is in the index of a time that its client repeats when it sends again: the one in a UUIDv7 `log_id`, else its
`timestamp`. Such events were sent on both sides of midnight, some in one request that was repeated, some waiting for
OpenSearch meanwhile, and none is there twice. An event with neither, a `log_id` of another kind and no `timestamp`, is
in the index of the month in which it was received; sent again in the next month, it is there once more, in that month's
index. Clients that can send again over a month's end should use UUIDv7 or a `timestamp`.""",
        tolerated=lambda log_id: log_id.startswith(LOOSE),
    ),
    Row("clock-back", "clock of the server put back by an hour", jump_back, prepare=own_clock, make=make_plain),
    Row(
        "clock-far",
        "clock of the server put 45 days ahead and back, a start with each, with dead letters and events that wait",
        jump_far,
        backend=Backend.PROXY,
        prepare=own_clock,
        set_up=map_label_as_number,
        make=make_dated,
        doomed=lambda event: "label" in event,
        prose="""\
Dead letters are kept for 30 days, and a day of running time beyond: a clock that is wrong takes none of them. The index
of an event follows from its own time and not from the server's clock, so those that were sent again on each side of
both jumps are there once.""",
    ),
    Row(
        "late-events",
        "events whose own time is 31 days from now, give or take 2.5 s, sent again 4 s later",
        send_late_again,
        find_month=find_far_month,
        prose="""\
No event's index depends on when the event arrives: half of these are a month old, and are in the index of their own
month. The other half come from a client whose clock is a month ahead, which counts for nothing; they are in the index
of the month in which they were received.""",
    ),
)
