"""One of several processes ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from chaos.rows import Loss, Row
from chaos.stage import POLL_S, Stage

WORKERS = 2
WORKER_NAME = "forebay-"
MOMENT_S = 0.4


async def kill_one(stage: Stage) -> None:
    """Kill one of the workers, a few times; the supervisor starts it again."""
    for turn in range(max(2, stage.scale.kills // 4)):
        await asyncio.sleep(MOMENT_S)
        pids = find_workers(stage.server.pid)
        await stage.kill_worker(pids[turn % len(pids)])
        while not set(find_workers(stage.server.pid)) - set(pids):
            await asyncio.sleep(POLL_S)
        await stage.wait_workers(WORKERS)


def find_workers(supervisor: int) -> list[int]:
    """Return the processes that a supervisor has started and that have become workers, oldest first."""
    found = []
    for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        # It may have ended meanwhile.
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith(WORKER_NAME):
                found.append(int(pid))
    return found


ROWS: Sequence[Row] = (
    Row(
        "worker-killed",
        f"one of {WORKERS} workers killed (`kill -9`), again and again",
        kill_one,
        loss=Loss.UNWRITTEN,
        settings={"FOREBAY_WORKERS": f"{WORKERS}"},
        short_acks=("disk", "memory"),
    ),
)
