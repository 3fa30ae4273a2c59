"""With fewer workers than last time, the spools of the others are emptied and removed, and nothing in them is lost."""

import asyncio
import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from forebay.clock import now_ms
from forebay.history import DeadLetter, History
from forebay.model import Entry
from forebay.sinks.local import LocalSink
from forebay.sinks.port import Query
from forebay.spool.beside.all_spools import AllSpools
from forebay.spool.beside.inspection import Choice
from forebay.spool.records import NewGroup, Transaction
from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer, is_running, wait_ended
from testbed.servers.hasty_forebay import HastyForebay
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
from unit.pipeline.fakes import commit, make_entries, open_spool

THREE = {"FOREBAY_WORKERS": "3", "FOREBAY_METRICS_OPEN": "true"}
QUICK = {"FOREBAY_BULK_INTERVAL_S": "0.5", "FOREBAY_RETRY_DELAY_S_MAX": "2", "FOREBAY_RETRY_INTERVAL_S": "5"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_events_of_a_worker_that_there_is_no_more_are_delivered_and_its_spool_is_removed(
    opensearch: OpenSearchAddress, tmp_path: Path, workers: int
) -> None:
    (nowhere,) = free_ports(1)
    environment = f"fewer-{workers}"
    settings = {**THREE, **QUICK, "SERVER_ENVIRONMENT": environment}
    with ForebayServer(tmp_path, {**settings, "OPEN_SEARCH_DNS": f"http://127.0.0.1:{nowhere}"}) as server:
        start_all(server)
        client = Client(server.url, server.token())
        await send_to_each(server, client, workers=3, events=3_000)
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


async def test_an_orphan_that_cannot_be_opened_is_left_and_named(tmp_path: Path) -> None:
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


ONE = {"FOREBAY_METRICS_OPEN": "true", **QUICK}


async def fill(path: Path, transaction: Transaction) -> None:
    """Leave a spool behind that nobody owns any more."""
    async with open_spool(path) as spool:
        await commit(spool, transaction)


def readable(log_id: str) -> Entry:
    """Return an entry that the embedded store takes."""
    document = json.dumps({"log_id": log_id, "received_at": "2026-11-02T03:04:05Z"})
    return f'{{"create":{{"_index":"events_local_2026-11","_id":"{log_id}"}}}}\n{document}\n'.encode()


async def read_delivered(folder: Path) -> list[str]:
    found = await LocalSink(folder / "spool-events.db", "test").search(Query({}, limit=100_000))
    return sorted(json.loads(bytes(document))["log_id"] for document in found)


def nowhere() -> dict[str, str]:
    """Return the settings of an OpenSearch that is away."""
    return {"OPEN_SEARCH_DNS": f"http://127.0.0.1:{free_ports(1)[0]}"}


async def wait_lines(server: ForebayServer, event: str, count: int) -> list[int]:
    """Wait until the log holds so many lines about one thing; return the numbers that they name."""
    async with asyncio.timeout(WAIT_S):
        while len(lines := log_lines(server, event)) < count:
            await asyncio.sleep(0.02)
    return [line["worker"] for line in lines]


async def test_dead_letters_of_an_orphan_stay_until_a_command_wants_them_back(tmp_path: Path) -> None:
    orphan = tmp_path / "spool.2.db"
    letter = DeadLetter(readable("letter"), "mapper_parsing_exception", "failed to parse", History(), now_ms())
    await fill(orphan, Transaction(inserts=[NewGroup(1, [readable("event")])], dead=[letter]))
    with HastyForebay(tmp_path, ONE) as server:
        start_all(server)
        await wait_lines(server, "orphan_closed", 1)
        assert spools(tmp_path) == ["spool.2.db", "spool.db"]
        await wait_well(server)
        assert AllSpools(tmp_path / "spool.db").replay(Choice()) == 1
        await wait_lines(server, "orphan_closed", 2)
        assert [line["removed"] for line in log_lines(server, "orphan_closed")] == [False, True]
        assert server.stop() == 0
    assert await read_delivered(tmp_path) == ["event", "letter"]
    assert files(tmp_path, "spool.2*") == []


async def test_whoever_is_killed_while_an_orphan_is_emptied_loses_and_doubles_nothing(
    opensearch: OpenSearchAddress, tmp_path: Path
) -> None:
    # A small bulk, so that there is time to kill somebody in the middle.
    settings = {**THREE, **QUICK, "SERVER_ENVIRONMENT": "fewer-killed", "FOREBAY_BULK_EVENTS_MAX": "50"}
    with HastyForebay(tmp_path, settings | nowhere()) as server:
        start_all(server)
        client = Client(server.url, server.token())
        await send_to_each(server, client, workers=3, events=3_000)
        server.kill()
        left = count_events(tmp_path / "spool.2.db") + count_events(tmp_path / "spool.3.db")
        server.settings |= {"FOREBAY_WORKERS": "1", "OPEN_SEARCH_DNS": opensearch.url}
        start_all(server)
        for kills in range(1, 4):
            numbers = await wait_lines(server, "orphan_opened", kills)
            await wait_fewer(tmp_path / f"spool.{numbers[-1]}.db")
            os.kill(server.worker_pids[0], signal.SIGKILL)
        await wait_lines(server, "orphan_opened", 4)
        server.kill()
        assert 0 < count_left(tmp_path) < left, "it was killed before it began, or after it had ended"
        start_all(server)
        await assert_exactly_once(client, Index(opensearch.url, "fewer-killed"))
        await wait_spools(tmp_path, ["spool.db"])
        assert server.stop() == 0


def count_left(folder: Path) -> int:
    return sum(count_events(folder / name) for name in spools(folder) if name != "spool.db")


async def wait_fewer(spool: Path) -> None:
    """Wait until some of the events in a spool have been delivered."""
    events = count_events(spool)
    async with asyncio.timeout(WAIT_S):
        while count_events(spool) >= events:
            await asyncio.sleep(0.01)


async def test_an_orphan_whose_events_have_to_wait_keeps_no_other_waiting_for_long(tmp_path: Path) -> None:
    for number in (2, 3):
        await fill(tmp_path / f"spool.{number}.db", Transaction(inserts=[NewGroup(1, make_entries(3))]))
    with HastyForebay(tmp_path, ONE | nowhere()) as server:
        start_all(server)
        numbers = await wait_lines(server, "orphan_opened", 4)
        assert sorted(numbers[:4]) == [2, 2, 3, 3]
        assert server.stop() == 0
    assert count_left(tmp_path) == 6


async def test_a_worker_without_a_listener_gives_way_to_those_that_take_events_and_ends_with_the_server(
    tmp_path: Path, short_folder: Path
) -> None:
    await fill(tmp_path / "spool.2.db", Transaction(inserts=[NewGroup(1, make_entries(3))]))
    # The paths of pytest's own folders may be too long for a socket.
    temporary = short_folder
    with ForebayServer(tmp_path, ONE | nowhere() | {"TMPDIR": str(temporary)}) as server:
        start_all(server)
        await wait_lines(server, "orphan_opened", 1)
        await wait_metric(server, "forebay_spool_events", 3)
        workers = server.worker_pids
        priorities = {number: os.getpriority(os.PRIO_PROCESS, pid) for number, pid in workers.items()}
        assert priorities[0] > priorities[1]
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_ended, workers.values())
        server.kill()
        assert sorted(line["worker"] for line in log_lines(server, "supervisor_gone")) == [1, 2]
        assert list(temporary.iterdir()) == []
        start_all(server)
        await wait_lines(server, "orphan_opened", 2)
        emptying = server.worker_pids[0]
        assert server.stop() == 0
        assert not is_running(emptying)
    assert count_left(tmp_path) == 3
