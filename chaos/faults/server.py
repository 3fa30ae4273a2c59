"""The server itself ends: killed, or told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from chaos.rows import Loss, Row
from chaos.stage import Stage

MOMENT_S_MAX = 0.8


async def kill(stage: Stage) -> None:
    """Kill the server at random moments and start it again."""
    source = random.SystemRandom()
    for _ in range(stage.scale.kills):
        await asyncio.sleep(source.uniform(0, MOMENT_S_MAX))
        await stage.kill_server()
        await stage.start_server()
    stage.require(stage.load.client.connection_errors > 0, "no client noticed that the server was killed")


async def end(stage: Stage) -> None:
    """Send SIGTERM in the middle of the load and start the server again."""
    for _ in range(max(2, stage.scale.kills // 4)):
        await asyncio.sleep(MOMENT_S_MAX / 2)
        code = await asyncio.to_thread(stage.server.stop)
        stage.require(code == 0, f"the server ended with {code}")
        await stage.start_server()
    stage.require(stage.load.client.resent > 0, "no client noticed that the server was told to stop")


ROWS: Sequence[Row] = (
    Row(
        "kill-9",
        "server killed (`kill -9`) at random moments, started again",
        kill,
        loss=Loss.UNWRITTEN,
        short_acks=("disk", "memory"),
        prose="""\
A request that was under way has no answer, and the client sends it again. With `ack=disk` every event that was
answered is in the spool and goes out after the start. Those that OpenSearch had already taken are answered with 409
and not stored twice. With `ack=memory` the events of the channel are gone with the process: that is the price of
this acknowledgement.""",
    ),
    Row(
        "sigterm",
        "server told to stop (SIGTERM) in the load, started again",
        end,
        short_acks=("disk", "memory"),
        prose="""\
The requests under way are answered, the channel is delivered, and the rest of it goes into the spool: nothing of
`ack=memory` is lost either.""",
    ),
)
