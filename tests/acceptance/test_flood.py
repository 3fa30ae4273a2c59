"""A flood from one sender is held at its limit, and costs nobody else an event."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from forebay.sinks.local import LocalSink
from forebay.sinks.port import Query
from testbed.servers.forebay import ForebayServer
from testbed.traffic.flood import flood, make_request, trickle

LIMIT_PER_S = 50
BURST_S = 1
FLOOD_PER_S = 5_000
OTHERS, OTHER_PER_S = 20, 10
SECONDS = 4
BODY = b'{"page": "/home", "event": "click"}'


@pytest.mark.parametrize("by", ["TOKEN", "DEVICE"])
async def test_a_flood_is_held_at_its_limit_and_nobody_else_is_refused(tmp_path: Path, by: str) -> None:
    settings = {
        f"FOREBAY_{by}_RATE_PER_S": str(LIMIT_PER_S),
        "FOREBAY_RATE_BURST_S": str(BURST_S),
        "FOREBAY_BULK_INTERVAL_S": "0.2",
    }
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        flooding = make_request(server.token("flood"), "flood", BODY)
        others = [make_request(server.token(f"user-{number}"), f"device-{number}", BODY) for number in range(OTHERS)]
        began_at = time.monotonic()
        sending = asyncio.create_task(flood(server.port, flooding, FLOOD_PER_S, SECONDS))
        sends = OTHER_PER_S * SECONDS
        found = await asyncio.gather(
            *(
                trickle(server.port, request, ((each + number / OTHERS) / OTHER_PER_S for each in range(sends)))
                for number, request in enumerate(others)
            )
        )
        flooded = await sending
        took_s = time.monotonic() - began_at
        server.stop()
    assert set(flooded) == {200, 429}
    assert all(each.statuses == {200: sends} for each in found)
    sink = LocalSink(tmp_path / "spool-events.db", "local")
    from_flood = await sink.count(Query({"user_id": "flood"}))
    # It left without the answers to the last events that were taken.
    assert LIMIT_PER_S * SECONDS <= flooded[200] <= from_flood <= LIMIT_PER_S * (BURST_S + took_s) + 1
    assert await sink.count(Query({})) == from_flood + OTHERS * sends
