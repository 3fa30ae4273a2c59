"""SQLite's log, which every commit goes into: it cannot be synced, or it has become large."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

from chaos.faults.disk import make_bulky
from chaos.metrics import scrape
from chaos.rows import Row
from chaos.stage import POLL_S, Stage
from testbed.servers.process_usage import peak_bytes
from testbed.servers.shaky_forebay import ShakyForebay

UNAVAILABLE = 503
EXIT_CODE = 1
REFUSED = "refused"
FAILED_POLLS = 100
MB = 1_000_000
PEAK_GROWTH_MB_MAX = 12
"""The most that a start beside a large log may take beyond one beside an empty log: less than the size of that log."""


async def fail_sync(server: ShakyForebay) -> None:
    """Let the sync of one commit fail, and wait until the server is done with that."""
    failures = (await scrape(server.url)).commit_failures
    while True:
        server.fail("sync log once")
        for _ in range(FAILED_POLLS):
            await asyncio.sleep(POLL_S)
            if (await scrape(server.url)).commit_failures > failures:
                # The next process would meet it once more.
                server.heal()
                return
        # It was the sync before the log is written back, which is only put off by that.


async def fail_syncs(stage: Stage) -> None:
    """Let the sync of single commits fail, each time until clients have got a 503; kill the server after the last."""
    client = stage.load.client
    for _ in range(max(2, stage.scale.kills // 4)):
        refused = client.answers[UNAVAILABLE]
        # A commit that only deletes delivered events may fail too, and no client notices that.
        while client.answers[UNAVAILABLE] == refused:
            await fail_sync(stage.shaky)
            await asyncio.sleep(POLL_S)
        await stage.load.wait_accepted(stage.scale.events_before // 4)
    stage.expect(client.connection_errors == 0, "a client got no answer, although a 503 was possible")
    await stage.load.pause()
    await stage.wait_drained()
    await _refuse_one(stage)
    await stage.kill_server()
    await stage.start_server()
    await stage.wait_drained()
    await stage.index.count()  # makes written documents visible
    found = {log_id async for log_id, _ in stage.index.documents()}
    stage.expect(REFUSED not in found, "an event is there that was answered with 503 and not sent again")
    stage.load.resume()
    await stage.load.wait_accepted(stage.scale.events_before // 4)
    stage.expect_sound()


async def _refuse_one(stage: Stage) -> None:
    """Send one event, alone and only once, whose commit fails."""
    stage.shaky.fail("sync log once")
    event = {"page": "/refused", "event": "view", "log_id": REFUSED}
    async with stage.load.client.session() as session, session.post(f"{stage.server.url}/events", json=event) as answer:
        stage.require(answer.status == UNAVAILABLE, f"the event was answered with {answer.status}")
    stage.shaky.heal()


async def fail_syncs_and_emptying(stage: Stage) -> None:
    """Let the sync of commits fail and the log be stuck as it is, until the server ends; then start it again."""
    for _ in range(max(2, stage.scale.kills // 4)):
        stage.shaky.fail("sync log", "truncate log")
        code = await asyncio.to_thread(stage.server.wait)
        stage.expect(code == EXIT_CODE, f"the server ended with {code}")
        stage.shaky.heal()
        await stage.start_server()
        await stage.load.wait_accepted(stage.scale.events_before // 4)
    stage.expect_sound()


class Start(NamedTuple):
    """The figures of one start.

    Attributes:
        took_s: until the server answered.
        peak_mb: the most resident memory until then.
    """

    took_s: float
    peak_mb: float


async def start_beside_large_log(stage: Stage) -> None:
    """Let a long reader make the log grow; kill the server, and start it beside that log."""
    log = stage.spool_path.with_name(f"{stage.spool_path.name}-wal")
    with _long_reader(stage):
        while log.stat().st_size < stage.scale.log_bytes:
            await asyncio.sleep(POLL_S)
        await stage.kill_server()
    log_bytes = log.stat().st_size
    large = await _start(stage)
    # In order, so that the log is written back; it is gone then.
    await asyncio.to_thread(stage.server.stop)
    stage.require(not log.exists(), "the log is still there")
    empty = await _start(stage)
    stage.notes.append(
        f"beside a log of {log_bytes / MB:,.0f} MB the server answered {large.took_s:.1f} s after its start and had "
        f"taken {large.peak_mb:.0f} MB of memory at the most; beside none {empty.took_s:.1f} s and {empty.peak_mb:.0f} "
        "MB"
    )
    stage.expect(
        large.peak_mb < empty.peak_mb + PEAK_GROWTH_MB_MAX,
        f"a start takes {large.peak_mb:.0f} MB beside a large log, and {empty.peak_mb:.0f} MB beside none",
    )


@contextlib.contextmanager
def _long_reader(stage: Stage) -> Iterator[None]:
    """Hold a snapshot of the spool: SQLite cannot begin its log anew while anybody reads from an older state."""
    path = f"file:{quote(str(stage.spool_path))}?mode=ro"
    with contextlib.closing(sqlite3.connect(path, uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM groups").fetchone()
        yield


async def _start(stage: Stage) -> Start:
    began_at = time.monotonic()
    await stage.start_server()
    return Start(time.monotonic() - began_at, peak_bytes(stage.server.pid) / 1e6)


ROWS: Sequence[Row] = (
    Row(
        "sync-fails",
        "a sync of the spool's log fails (EIO), again and again; `kill -9` at the end",
        fail_syncs,
        acks=("disk",),
        serve=ShakyForebay,
        prose="""\
After a sync that failed nobody knows how much of the log is on the disk. So nobody is answered before SQLite has
emptied the log; then those who wait get 503, and nothing of theirs is in the spool: the last of them is not sent again
here, the server is killed at once, and the event never appears. A sync that failed damages nothing, and nothing is
called damaged.""",
    ),
    Row(
        "log-stuck",
        "the same, and the log cannot be emptied either: the server ends and is started again",
        fail_syncs_and_emptying,
        acks=("disk",),
        serve=ShakyForebay,
        prose="""\
Nobody then knows whether the last commit will be there, and neither 200 nor 503 would be true. The connections
of those who wait are closed without an answer, and the process ends with 1. Clients send again.""",
    ),
    Row(
        "large-log",
        "server killed (`kill -9`) beside a large log that a reader has kept SQLite from beginning anew, started again",
        start_beside_large_log,
        acks=("disk",),
        # A log that takes no time to write shows nothing.
        short_acks=(),
        make=make_bulky,
    ),
)
