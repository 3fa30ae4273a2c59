"""An event that makes OpenSearch, or a proxy before it, drop the connection ends alone, as a dead letter."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from testbed.servers.fake_opensearch import FakeOpenSearch
from testbed.servers.forebay import ForebayServer
from testbed.traffic.client import Client
from testbed.traffic.events import expected_info, make_events

PATIENCE_S = 90.0
QUICK = {
    "FOREBAY_BULK_INTERVAL_S": "0.1",
    "FOREBAY_RETRY_DELAY_S_MIN": "0.05",
    "FOREBAY_RETRY_DELAY_S_MAX": "0.5",
    "FOREBAY_RETRY_INTERVAL_S": "1",
}


def read_dead(path: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT log_id, error_type, reason FROM dead_letters").fetchall()


async def test_one_poisonous_event_among_thousands_ends_in_the_dead_letters_and_all_others_arrive(
    tmp_path: Path,
) -> None:
    events = make_events(0, 6_000)
    poison = {"page": "/home", "event": "click", "log_id": "poison-1", "label": "resets the connection"}
    events.insert(3_123, poison)
    async with FakeOpenSearch(b"resets the connection") as opensearch:
        with ForebayServer(tmp_path, {**QUICK, "OPEN_SEARCH_DNS": opensearch.url}) as server:
            await asyncio.to_thread(server.start)
            client = Client(server.url, server.token())
            await client.send(events, batch=50, connections=4)

            deadline, number = time.monotonic() + PATIENCE_S, 6_000
            while not read_dead(tmp_path / "spool.db"):
                assert time.monotonic() < deadline, server.log
                # That one is poison is known only from others that are taken.
                await client.send(make_events(number, 1), batch=1, connections=1)
                number += 1
            while len(opensearch.documents) < len(client.accepted) - 1:
                assert time.monotonic() < deadline, server.log
                await asyncio.sleep(0.05)

            assert await asyncio.to_thread(server.stop) == 0
    ((log_id, error_type, reason),) = read_dead(tmp_path / "spool.db")
    assert (log_id, error_type) == ("poison-1", "poison")
    assert reason.startswith("3 deliveries ended without an answer while others were taken: ")
    assert opensearch.documents.keys() == client.accepted.keys() - {"poison-1"}
    for log_id, event in client.accepted.items():
        assert log_id == "poison-1" or opensearch.documents[log_id]["event_info"] == expected_info(event)
    assert opensearch.resets < 60, "it is not tried in a tight circle"
    assert "event_is_poison" in server.log
