"""The faults of the soak: each of them comes and goes while the load goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from chaos.faults.clock import HOUR_S, set_clock
from chaos.faults.log import fail_sync
from chaos.mixture import Mixture
from testbed.servers import misbehaviour
from testbed.servers.faulty_proxy import Behaviour, pass_on
from testbed.servers.opensearch_admin import MissingPipeline

Trouble: TypeAlias = Callable[[Mixture], Awaitable[None]]

LENGTH_S = (1.0, 8.0)
MOMENT_S = (0.2, 3.0)
LATENCY_S = 2.0
CERTAIN = b'"page":"/Europe/Paris"'
"""One event in nearly a thousand."""

SYNCS = 5
AHEAD_H = (24.0, 240.0)
BACK_H = (-20.0, -0.1)
"""Less than a day: the time of a client that is further ahead of the server counts for nothing."""


async def _last(range_s: tuple[float, float] = LENGTH_S) -> None:
    await asyncio.sleep(random.SystemRandom().uniform(*range_s))


async def kill_server(mixture: Mixture) -> None:
    """Kill the server while only clients with `ack=disk` send."""
    await mixture.spare_memory()
    await _last(MOMENT_S)
    await asyncio.to_thread(mixture.server.kill)
    await asyncio.to_thread(mixture.server.start)
    mixture.from_memory.resume()


async def end_server(mixture: Mixture) -> None:
    """Tell the server to stop and start it again."""
    await asyncio.to_thread(mixture.server.stop)
    await asyncio.to_thread(mixture.server.start)


async def freeze_opensearch(mixture: Mixture) -> None:
    """Stop OpenSearch without closing its connections."""
    await asyncio.to_thread(mixture.opensearch.pause)
    await _last()
    await asyncio.to_thread(mixture.opensearch.resume)


async def kill_opensearch(mixture: Mixture) -> None:
    """Kill OpenSearch and start it again."""
    await asyncio.to_thread(mixture.opensearch.kill)
    await _last()
    await asyncio.to_thread(mixture.opensearch.start)


async def refuse(mixture: Mixture) -> None:
    """Take no connections."""
    await asyncio.to_thread(mixture.proxy.refuse)
    await _last()
    await asyncio.to_thread(mixture.proxy.accept)


async def fail_syncs(mixture: Mixture) -> None:
    """Let the sync of single commits fail."""
    for _ in range(SYNCS):
        await fail_sync(mixture.server)
        await _last(MOMENT_S)


async def miss_pipeline(mixture: Mixture) -> None:
    """Let the indices name an ingest pipeline that is missing: they take nothing."""
    async with MissingPipeline(mixture.opensearch.url, mixture.server.settings["SERVER_ENVIRONMENT"]):
        await _last()


def _put_clock(hours: tuple[float, float]) -> Trouble:
    async def trouble(mixture: Mixture) -> None:
        ahead_s = random.SystemRandom().uniform(*hours) * HOUR_S
        await asyncio.to_thread(set_clock, mixture.server.folder, ahead_s)
        await _last()
        await asyncio.to_thread(set_clock, mixture.server.folder, 0)

    return trouble


def _misbehave(behaviour: Behaviour) -> Trouble:
    async def trouble(mixture: Mixture) -> None:
        await asyncio.to_thread(mixture.proxy.behave, behaviour)
        await _last()
        await asyncio.to_thread(mixture.proxy.behave, pass_on)

    return trouble


ENDINGS: Mapping[str, Trouble] = {"kill -9 of the server": kill_server, "SIGTERM": end_server}
"""The faults that end the process of the server."""

TROUBLES: Mapping[str, Trouble] = {
    "OpenSearch frozen": freeze_opensearch,
    "OpenSearch killed": kill_opensearch,
    "connections refused": refuse,
    "reset before an answer": _misbehave(misbehaviour.reset_before),
    "reset in the answer": _misbehave(misbehaviour.reset_in_answer),
    "no answer": _misbehave(misbehaviour.hang_after),
    "429 to all": _misbehave(misbehaviour.refuse_all(429)),
    "429 to a third": _misbehave(misbehaviour.refuse_items(1 / 3)),
    "HTML": _misbehave(misbehaviour.show_page(200)),
    "403 to all": _misbehave(misbehaviour.show_page(403)),
    "403 to certain events": _misbehave(misbehaviour.refuse_bulks_with(CERTAIN, 403, "html")),
    "pipeline fails": _misbehave(misbehaviour.fail_pipeline()),
    "pipeline missing": miss_pipeline,
    "cut off JSON": _misbehave(misbehaviour.cut_json),
    "fewer items": _misbehave(misbehaviour.drop_items),
    "slow": _misbehave(misbehaviour.be_slow(LATENCY_S)),
    "sync of the log failed": fail_syncs,
    "clock ahead": _put_clock(AHEAD_H),
    "clock back": _put_clock(BACK_H),
}
"""The faults that leave it running."""
