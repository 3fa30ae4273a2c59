"""The spool's file is damaged while it holds events that are nowhere else."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from chaos.rows import Loss, Place, Row
from chaos.stage import Stage

PAGE_BYTES = 4096
OVERWRITTEN_BYTES = 4 * PAGE_BYTES
FIRST_PAGES = 8
"""Pages that hold the schema and the heads of tables: what is to be damaged is events."""

PENDING_EVENTS = 2_000
SETTINGS = {"FOREBAY_CHANNEL_EVENTS_MAX": "500"}

Damage = Callable[[Path], None]


def cut_short(path: Path) -> None:
    """Take away the second half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Leave nothing of a file but its name."""
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    """Write noise over some pages in the second half of a file."""
    pages = path.stat().st_size // PAGE_BYTES
    source = random.Random(pages)
    page = source.randrange(max(FIRST_PAGES, pages // 2), pages - OVERWRITTEN_BYTES // PAGE_BYTES)
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(source.randbytes(OVERWRITTEN_BYTES))
        file.flush()
        os.fsync(file.fileno())


def while_stopped(damage: Damage) -> Callable[[Stage], Awaitable[None]]:
    """Make a fault: OpenSearch is away, the server is told to stop, its file is damaged, and all is started again."""

    async def fault(stage: Stage) -> None:
        await _let_events_wait(stage)
        await asyncio.to_thread(stage.server.stop)
        await _damage(stage, damage)
        await stage.start_server()
        await asyncio.to_thread(stage.proxy.accept)

    return fault


async def while_running(stage: Stage) -> None:
    """Overwrite pages of the file under the running server while OpenSearch is away."""
    await _let_events_wait(stage)
    await _damage(stage, overwrite)
    await asyncio.sleep(stage.scale.fault_s)
    await asyncio.to_thread(stage.proxy.accept)


async def _let_events_wait(stage: Stage) -> None:
    await asyncio.to_thread(stage.proxy.refuse)
    await stage.load.wait_accepted(PENDING_EVENTS)


async def _damage(stage: Stage, damage: Damage) -> None:
    await asyncio.to_thread(damage, stage.spool_path)
    stage.damaged_at = time.monotonic()
    stage.at_risk = len(stage.load.client.taken) - await stage.index.count()
    stage.require(stage.at_risk > 0, "no event was in the spool alone")


PROSE = """\
Events that were nowhere but in the damaged part of the file are gone with it. What can be asked is that the server
says so, saves what can be read, and goes on: no event that was answered after the damage is lost."""


def _row(name: str, title: str, fault: Callable[[Stage], Awaitable[None]], prose: str = "") -> Row:
    return Row(
        name,
        title,
        fault,
        place=Place.PROXY,
        acks=("disk",),
        loss=Loss.DAMAGED,
        settings=SETTINGS,
        prose=prose,
        awaits="recovery of a damaged spool",
    )


ROWS: Sequence[Row] = (
    _row(
        "spool-cut-short",
        "spool cut short to a half while stopped, with events waiting",
        while_stopped(cut_short),
        PROSE,
    ),
    _row(
        "spool-overwritten",
        "pages of the spool overwritten while stopped, with events waiting",
        while_stopped(overwrite),
    ),
    _row("spool-empty", "spool of zero length at the start, with events waiting", while_stopped(empty)),
    _row(
        "spool-overwritten-running", "pages of the spool overwritten while running, with events waiting", while_running
    ),
)
