"""The spool's file is damaged while it holds events that are nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp

from chaos.faults.disk import make_bulky
from chaos.rows import Backend, Loss, Row
from chaos.stage import POLL_S, Stage
from forebay.spool.files import PAGE_BYTES

DISK_PAGE_BYTES = 4096
OVERWRITTEN_BYTES = 4 * DISK_PAGE_BYTES
PENDING_EVENTS = 3_000
SETTINGS = {"FOREBAY_CHANNEL_EVENTS_MAX": "500"}
"""Events that wait only in the file, more of them than SQLite keeps in memory: they have to be read from it."""

TOLD = ("spool_damaged", "spool_emptied", "log_cut_off")
"""The server's log lines about its files at the start: damaged, empty, or with a log that ends early."""

LOG_HEADER_BYTES = 32
FRAME_BYTES = 24 + PAGE_BYTES
SALTS = slice(8, 16)
HEADER_SALTS = slice(16, 24)

Damage = Callable[[Path], None]


def cut_short(path: Path) -> None:
    """Take away the second half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Empty a file."""
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    """Write noise over some pages in the middle of a file."""
    pages = path.stat().st_size // DISK_PAGE_BYTES
    start = random.SystemRandom().randrange(pages // 4, pages // 2) * DISK_PAGE_BYTES
    _write_noise(path, start, OVERWRITTEN_BYTES)


def overwrite_head(path: Path) -> None:
    """Write noise over the page with the file's header and the roots of its tables."""
    _write_noise(path, 0, PAGE_BYTES)


def overwrite_log(path: Path) -> None:
    """Write noise over some pages of the disk in the middle of SQLite's log."""
    log = path.with_name(f"{path.name}-wal")
    middle = _count_frames(log) // 2 * FRAME_BYTES
    _write_noise(log, middle // DISK_PAGE_BYTES * DISK_PAGE_BYTES, OVERWRITTEN_BYTES)


def _count_frames(log: Path) -> int:
    """Return the number of frames in the log since SQLite began it anew (https://sqlite.org/fileformat2.html, 4)."""
    content = log.read_bytes()
    frames = range(LOG_HEADER_BYTES, len(content) - FRAME_BYTES + 1, FRAME_BYTES)
    salts = content[HEADER_SALTS]
    found = (content[start + SALTS.start : start + SALTS.stop] for start in frames)
    return sum(1 for _ in itertools.takewhile(lambda each: each == salts, found))


def _write_noise(path: Path, offset: int, noise_bytes: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(random.SystemRandom().randbytes(noise_bytes))
        file.flush()
        os.fsync(file.fileno())


def while_stopped(damage: Damage) -> Callable[[Stage], Awaitable[None]]:
    """Make a fault: OpenSearch is away, the server is told to stop, its file is damaged, and all is started again."""

    async def fault(stage: Stage) -> None:
        await _let_events_wait(stage)
        await asyncio.to_thread(stage.server.stop)
        await _damage(stage, damage)
        await stage.start_server()
        stage.notes.append(f"said at the start: {_list_told(stage)}")
        await asyncio.to_thread(stage.proxy.accept)
        await _keep_running(stage)

    return fault


async def after_kill(stage: Stage) -> None:
    """Kill the server while OpenSearch is away, overwrite events that only SQLite's log has, and start all again."""
    await _let_events_wait(stage)
    await stage.kill_server()
    await _damage(stage, overwrite_log)
    await stage.start_server()
    stage.expect("log_cut_off" in stage.server.log, "the server does not report that its log ends early")
    stage.notes.append(f"said at the start: {_list_told(stage)}")
    await asyncio.to_thread(stage.proxy.accept)
    await _keep_running(stage)


def _list_told(stage: Stage) -> str:
    return ", ".join(f"`{word}`" for word in TOLD if word in stage.server.log) or "nothing"


async def while_running(stage: Stage) -> None:
    """Overwrite pages of the file under the running server; if it ends by itself, start it again."""
    await _let_events_wait(stage)
    # Pages that are only in SQLite's log cannot be damaged in the file.
    with contextlib.closing(sqlite3.connect(stage.spool_path)) as beside:
        beside.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await _damage(stage, overwrite)
    await asyncio.to_thread(stage.proxy.accept)
    await _keep_running(stage)


async def _keep_running(stage: Stage) -> None:
    """Start the server again if it ends, until all waiting events were read; none is added meanwhile."""
    pausing = asyncio.create_task(stage.load.pause())
    while True:
        await stage.revive()
        # It may end while it is asked.
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            if not (await stage.metrics()).pending_events and pausing.done():
                return
        await asyncio.sleep(POLL_S)


async def _let_events_wait(stage: Stage) -> None:
    await asyncio.to_thread(stage.proxy.refuse)
    await stage.load.wait_accepted(PENDING_EVENTS)


async def _damage(stage: Stage, damage: Damage) -> None:
    await asyncio.to_thread(damage, stage.spool_path)
    stage.damaged_at = time.monotonic()
    stage.at_risk = len(stage.load.client.taken) - await stage.index.count()
    stage.require(stage.at_risk > 0, "no event was in the spool alone")


PROSE = """\
Events that were only in the damaged part of the file are gone with it. The server must say so, save everything
readable, and go on: no event that was answered after the damage is lost."""


def _row(
    name: str, title: str, fault: Callable[[Stage], Awaitable[None]], prose: str = "", loss: Loss = Loss.DAMAGED
) -> Row:
    return Row(
        name,
        title,
        fault,
        backend=Backend.PROXY,
        acks=("disk",),
        loss=loss,
        make=make_bulky,
        settings=SETTINGS,
        prose=prose,
    )


ROWS: Sequence[Row] = (
    _row(
        "spool-head-overwritten",
        "first page of the spool overwritten while stopped, with events waiting",
        while_stopped(overwrite_head),
        "No event lies in that page, and all others are read without it.",
        Loss.NOTHING,
    ),
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
        "log-overwritten",
        "pages of the spool's `-wal` overwritten after `kill -9`, with events waiting",
        after_kill,
        """\
SQLite reads its log up to the first page that is not as it wrote it, and the rest is lost. The server says so,
and `forebay doctor` shows it as an incident. Pages behind the damage that are still whole could be read without SQLite:
a server that did so lost 21 of 3,463 events in the short form of this run. But only SQLite knows which of them count,
and that server took sound spools for damaged ones ([why it is not done](decisions/sqlite-is-the-judge.md)).""",
    ),
    _row(
        "spool-overwritten-running", "pages of the spool overwritten while running, with events waiting", while_running
    ),
)
