"""Checks the promise: each accepted event is in OpenSearch once, whatever was done to the servers meanwhile."""

import asyncio
from collections.abc import Callable

from testbed.traffic.client import HEADERS, Client
from testbed.traffic.events import expected_info
from testbed.traffic.index import Index

STALLED_S = 120.0


async def send_and_interfere(
    client: Client, events: list[dict[str, object]], interfere: list[Callable[[], None]]
) -> None:
    """Send all events; at equal parts of the way do something to the servers."""
    sending = asyncio.create_task(client.send(events, batch=50, connections=8))
    for part, action in enumerate(interfere, start=1):
        while len(client.accepted) < len(events) * part // (len(interfere) + 1) and not sending.done():
            await asyncio.sleep(0.005)
        await asyncio.to_thread(action)
    await sending


async def assert_exactly_once(client: Client, index: Index) -> None:
    """Check that OpenSearch holds each accepted event once, and nothing else."""
    await index.wait_count(len(client.accepted), STALLED_S)
    seen: set[str] = set()
    async for log_id, document in index.documents():
        assert log_id in client.accepted, f"{log_id} was never accepted"
        assert log_id not in seen, f"{log_id} is there twice"
        seen.add(log_id)
        assert document["log_id"] == log_id
        assert document["event_info"] == expected_info(client.accepted[log_id])
        assert document["device_uuid"] == HEADERS["device-uuid"]
    missing = client.accepted.keys() - seen
    assert not missing, f"{len(missing)} of {len(client.accepted)} accepted events are not in OpenSearch"
