"""After a start with fewer workers than before, the spools of the others are emptied too."""

import asyncio
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer
from testbed.servers.observing import (
    WAIT_S,
    count_events,
    files,
    log_lines,
    read_health,
    spools,
    start_all,
    wait_metric,
    wait_spools,
    wait_well,
)
from testbed.servers.ports import free_ports
from testbed.traffic.client import Client
from testbed.traffic.exactly_once import assert_exactly_once
from testbed.traffic.index import Index
from testbed.traffic.spread import send_to_each

THREE = {"FOREBAY_WORKERS": "3", "FOREBAY_METRICS_OPEN": "true"}
QUICK = {"FOREBAY_BULK_INTERVAL_S": "0.5", "FOREBAY_RETRY_DELAY_S_MAX": "2", "FOREBAY_RETRY_INTERVAL_S": "5"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_events_pending_with_a_former_worker_are_delivered_and_its_spool_removed(
    opensearch: OpenSearchAddress, tmp_path: Path, workers: int
) -> None:
    (nowhere,) = free_ports(1)
    environment = f"fewer-{workers}"
    settings = {**THREE, **QUICK, "SERVER_ENVIRONMENT": environment}
    with ForebayServer(tmp_path, {**settings, "OPEN_SEARCH_DNS": f"http://127.0.0.1:{nowhere}"}) as server:
        start_all(server)
        client = Client(server.url, server.token())
        await send_to_each(server, client, workers=3, events=12_000)
        # One of them is not even told to stop.
        os.kill(server.worker_pids[3], signal.SIGKILL)
        server.kill()
        assert count_events(tmp_path / "spool.3.db") > 0
        assert sum(count_events(tmp_path / name) for name in spools(tmp_path)) == len(client.accepted)
        server.settings |= {"FOREBAY_WORKERS": str(workers), "OPEN_SEARCH_DNS": opensearch.url}
        start_all(server)
        await assert_exactly_once(client, Index(opensearch.url, environment))
        await wait_spools(tmp_path, ["spool.2.db", "spool.db"][-workers:])
        await wait_metric(server, "forebay_spool_events", 0)
        await wait_well(server)
        assert server.stop() == 0
    assert files(tmp_path, "spool.3*") == []


async def test_a_spool_without_an_owner_that_cannot_be_taken_over_is_left_and_named(tmp_path: Path) -> None:
    newer = tmp_path / "spool.2.db"
    connection = sqlite3.connect(newer)
    connection.executescript(f"PRAGMA application_id = {0x466F7262}; PRAGMA user_version = 99; CREATE TABLE t (c);")
    connection.close()
    before = newer.read_bytes()
    with ForebayServer(tmp_path, QUICK) as server:
        start_all(server)
        async with asyncio.timeout(WAIT_S):
            while (health := await asyncio.to_thread(read_health, server))["status"] == "ready":
                await asyncio.sleep(0.05)
        assert health["status"] == "degraded"
        assert "spool.2.db was written by a newer Forebay" in health["causes"][0]
        assert server.stop() == 0
        assert len(log_lines(server, "spool_left")) == 1
    assert newer.read_bytes() == before
