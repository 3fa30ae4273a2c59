"""The clock of the server: a month ends, or it jumps back. Debian's `faketime` lets only this process see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chaos.load import make_plain
from chaos.rows import Place, Row
from chaos.scale import Scale
from chaos.stage import Stage
from traffic.events import Event, make_event

HOUR_S = 3600
REPEATED = 200
LOOSE = "loose-"
BEFORE_S = 20.0
AROUND_S = 60


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
    """Give the server a clock that a fault can set; it starts right.

    Raises:
        NoFaketime: the library is not there.
    """
    del scale
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
    if library is None:
        raise NoFaketime("the clock of a process cannot be set without Debian's package faketime")
    set_clock(folder, 0)
    yield {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
        "FAKETIME_NO_CACHE": "1",
        # Time-outs and intervals are measured by another clock, which no jump changes.
        "DONT_FAKE_MONOTONIC": "1",
    }


@contextlib.contextmanager
def clock_before_midnight(folder: Path, scale: Scale) -> Iterator[dict[str, str]]:
    """Give the server a clock at which the month is nearly over."""
    with own_clock(folder, scale) as settings:
        set_clock(folder, MIDNIGHT - BEFORE_S - time.time())
        yield settings


async def end_month(stage: Stage) -> None:
    """Let the month end: with requests in hand, events that wait, and clients that send again on the other side."""
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


def make_around_midnight(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event of a client whose clock is a little before or behind the end of the month.

    Its `log_id`, where it has one, is a UUIDv7, or it has a `timestamp`: so it is the same event whenever it is sent.
    """
    now_s = MIDNIGHT + number * 7 % (2 * AROUND_S) - AROUND_S
    event = make_event(number, with_id=with_id, now_s=now_s)
    return {"timestamp": int(now_s * 1000)} | event


ROWS: Sequence[Row] = (
    Row(
        "month",
        "a month ends, with requests in hand, events that wait, and clients that send again",
        end_month,
        place=Place.PROXY,
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
)
