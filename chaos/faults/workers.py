"""One of several processes ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.rows import Loss, Row
from chaos.stage import POLL_S, Stage

WORKERS = 2
MOMENT_S = 0.4


async def kill_one(stage: Stage) -> None:
    """Kill one of the workers, a few times; the supervisor starts it again."""
    for turn in range(max(2, stage.scale.kills // 4)):
        await asyncio.sleep(MOMENT_S)
        pids = stage.server.worker_pids
        await stage.kill_worker(pids[sorted(pids)[turn % len(pids)]])
        while len(set(stage.server.worker_pids.values()) - set(pids.values())) < 1:
            await asyncio.sleep(POLL_S)
        await stage.wait_workers(WORKERS)


ROWS: Sequence[Row] = (
    Row(
        "worker-killed",
        f"one of {WORKERS} workers killed (`kill -9`), again and again",
        kill_one,
        loss=Loss.UNWRITTEN,
        settings={"FOREBAY_WORKERS": f"{WORKERS}"},
        short_acks=("disk", "memory"),
        awaits="several workers",
    ),
)
