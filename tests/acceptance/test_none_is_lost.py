"""The promise: every event that got a 200 is in OpenSearch exactly once, no matter which process was killed."""

import asyncio
import json
from pathlib import Path

import pytest

from forebay.sinks.local import LocalSink
from forebay.sinks.port import Query
from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.ports import free_ports
from testbed.traffic.client import Client
from testbed.traffic.events import expected_info, make_events
from testbed.traffic.exactly_once import assert_exactly_once, send_and_interfere
from testbed.traffic.index import Index

QUICK = {"FOREBAY_BULK_INTERVAL_S": "0.5", "FOREBAY_RETRY_DELAY_S_MAX": "2", "FOREBAY_RETRY_INTERVAL_S": "5"}


def settings(opensearch_url: str, environment: str) -> dict[str, str]:
    return {**QUICK, "OPEN_SEARCH_DNS": opensearch_url, "SERVER_ENVIRONMENT": environment}


async def test_200_000_events_of_many_kinds_are_in_opensearch_exactly_once(
    opensearch: OpenSearchAddress, tmp_path: Path
) -> None:
    with ForebayServer(tmp_path, settings(opensearch.url, "many")) as server:
        server.start()
        client = Client(server.url, server.token())
        events = make_events(0, 200_000, with_ids=False)
        await client.send(events[:20_000], batch=1, connections=32)
        await client.send(events[20_000:], batch=200, connections=8)
        assert len(client.accepted) == 200_000
        await assert_exactly_once(client, Index(opensearch.url, "many"))
        assert server.stop() == 0


@pytest.mark.parametrize("kills", [3])
async def test_a_server_killed_in_the_middle_of_the_load_loses_nothing_and_doubles_nothing(
    opensearch: OpenSearchAddress, tmp_path: Path, kills: int
) -> None:
    with ForebayServer(tmp_path, settings(opensearch.url, "killed")) as server:
        server.start()
        client = Client(server.url, server.token())

        def kill_and_start() -> None:
            server.kill()
            server.start()

        await send_and_interfere(client, make_events(0, 40_000), [kill_and_start] * kills)
        assert client.resent > 0, "no request was interrupted: the kills came at the wrong moment"
        await assert_exactly_once(client, Index(opensearch.url, "killed"))


async def test_an_opensearch_killed_in_the_middle_of_the_load_loses_nothing_and_doubles_nothing(
    own_opensearch: OpenSearchServer, tmp_path: Path
) -> None:
    with ForebayServer(tmp_path, settings(own_opensearch.url, "away")) as server:
        server.start()
        client = Client(server.url, server.token())
        await send_and_interfere(client, make_events(0, 40_000), [own_opensearch.kill, own_opensearch.start])
        assert client.resent == 0, "a client noticed that OpenSearch was away"
        await assert_exactly_once(client, Index(own_opensearch.url, "away"))


async def test_both_killed_with_everything_pending_lose_nothing_and_double_nothing(
    own_opensearch: OpenSearchServer, tmp_path: Path
) -> None:
    small = {"FOREBAY_CHANNEL_EVENTS_MAX": "5000", **settings(own_opensearch.url, "both")}
    with ForebayServer(tmp_path, small) as server:
        server.start()
        client = Client(server.url, server.token())

        def kill_both() -> None:
            own_opensearch.kill()
            server.kill()
            server.start()

        await send_and_interfere(client, make_events(0, 30_000), [kill_both])
        await asyncio.to_thread(own_opensearch.start)
        await assert_exactly_once(client, Index(own_opensearch.url, "both"))


async def test_a_server_told_to_stop_in_the_middle_of_the_load_loses_nothing_even_from_memory(
    opensearch: OpenSearchAddress, tmp_path: Path
) -> None:
    with ForebayServer(tmp_path, {"FOREBAY_ACK": "memory", **settings(opensearch.url, "stopped")}) as server:
        server.start()
        client = Client(server.url, server.token())

        def stop_and_start() -> None:
            assert server.stop() == 0
            server.start()

        await send_and_interfere(client, make_events(0, 30_000), [stop_and_start] * 2)
        await assert_exactly_once(client, Index(opensearch.url, "stopped"))


async def test_events_in_memory_of_a_server_that_stops_without_opensearch_are_delivered_after_the_next_start(
    opensearch: OpenSearchAddress, tmp_path: Path
) -> None:
    (nowhere,) = free_ports(1)
    alone = {"FOREBAY_ACK": "memory", **settings(f"http://127.0.0.1:{nowhere}", "later")}
    with ForebayServer(tmp_path, alone) as server:
        server.start()
        client = Client(server.url, server.token())
        await client.send(make_events(0, 5_000), batch=50, connections=4)
        assert server.stop() == 0
        server.settings["OPEN_SEARCH_DNS"] = opensearch.url
        server.start()
        await assert_exactly_once(client, Index(opensearch.url, "later"))


async def test_the_embedded_store_keeps_the_promise_too_when_the_server_is_killed(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, QUICK) as server:
        server.start()
        client = Client(server.url, server.token())

        def kill_and_start() -> None:
            server.kill()
            server.start()

        await send_and_interfere(client, make_events(0, 20_000), [kill_and_start] * 2)
        assert server.stop() == 0
    found = await LocalSink(tmp_path / "spool-events.db", "local").search(Query({}, limit=50_000))
    assert len(found) == len(client.accepted) == 20_000
    assert {document["log_id"]: document["event_info"] for document in map(json.loads, map(bytes, found))} == {
        log_id: expected_info(event) for log_id, event in client.accepted.items()
    }
