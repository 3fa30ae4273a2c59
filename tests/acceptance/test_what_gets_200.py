"""OpenSearch takes every event that got a 200: no odd event that a server accepts becomes a dead letter."""

import asyncio
import sqlite3
import time
import uuid
from contextlib import closing
from pathlib import Path
from random import Random

import aiohttp

from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer
from testbed.traffic.index import Index
from testbed.traffic.odd_events import OddEvents

EVENTS = 2_000
SEED = 2_026
PATIENCE_S = 150.0
IN_FLIGHT = 16


async def post(session: aiohttp.ClientSession, url: str, bodies: list[bytes]) -> int:
    """Send events, some at a time; return how many got a 200."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def send(body: bytes) -> bool:
        async with room, session.post(url, data=body) as response:
            assert response.status in (200, 400, 413), await response.text()
            return response.status == 200

    return sum(await asyncio.gather(*map(send, bodies)))


def read_spool(path: Path) -> tuple[int, list[tuple[str, str]]]:
    with closing(sqlite3.connect(path)) as connection:
        (pending,) = connection.execute("SELECT events FROM totals").fetchone()
        return pending, connection.execute("SELECT error_type, reason FROM dead_letters").fetchall()


async def test_none_of_thousands_of_odd_events_dies(opensearch: OpenSearchAddress, tmp_path: Path) -> None:
    environment = f"door-{uuid.uuid4().hex[:8]}"
    odd = OddEvents(Random(SEED))
    bodies = [odd.body(f"odd-{number}") for number in range(EVENTS)]
    index = Index(opensearch.url, environment)
    settings = {
        "OPEN_SEARCH_DNS": opensearch.url,
        "SERVER_ENVIRONMENT": environment,
        "FOREBAY_BULK_INTERVAL_S": "0.2",
        "FOREBAY_BULK_BYTES_MAX": "300000",  # the server of the tests has a small heap
        "FOREBAY_RETRY_INTERVAL_S": "2",
    }
    with ForebayServer(tmp_path, settings) as server:
        await asyncio.to_thread(server.start)
        headers = {"Authorization": f"Bearer {server.token()}", "Content-Type": "application/json"}
        async with aiohttp.ClientSession(headers=headers) as session:
            accepted = await post(session, f"{server.url}/events", bodies[: EVENTS // 2])
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            accepted += await post(session, f"{server.url}/events", bodies[EVENTS // 2 :])
        assert accepted > EVENTS * 0.9
        deadline = time.monotonic() + PATIENCE_S
        while read_spool(tmp_path / "spool.db")[0]:
            assert time.monotonic() < deadline, server.log[-5000:]
            await asyncio.sleep(0.5)
        assert await asyncio.to_thread(server.stop) == 0
    assert read_spool(tmp_path / "spool.db") == (0, [])
    assert await index.count() == accepted
    await index.remove()
