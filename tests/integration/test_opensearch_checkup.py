"""The doctor checks a real OpenSearch: it calls sound parts sound, and names each fault with a remedy."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from forebay.doctor import clocks
from forebay.doctor.checks import make_context
from forebay.doctor.finding import Finding, Level
from forebay.document import Document, EventInfo, encode_entry
from forebay.model import DELIVERED, Address, Outcome
from forebay.setting_values import SinkHost
from forebay.settings import Settings
from forebay.sinks.months import index_of
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.opensearch.template import NAME
from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.ports import HOST, free_ports
from unit.doctor.contexts import check_opensearch

ALL = {
    "cluster",
    "disks",
    "cluster blocks",
    "months",
    "index blocks",
    "shards",
    "template",
    "mapping",
    "ids",
    "bulk bytes",
    "rights",
}


@pytest.fixture
def environment() -> str:
    """Return an environment of this test alone."""
    return f"checkup{uuid.uuid4().hex[:12]}"


@pytest.fixture
def settings(opensearch: OpenSearchAddress, environment: str) -> Settings:
    return make_settings(opensearch.url, environment)


@pytest.fixture
async def client(opensearch: OpenSearchAddress) -> AsyncIterator[OpenSearchClient]:
    client = OpenSearchClient(Access(hosts=(SinkHost(opensearch.url),)), 30, 1)
    yield client
    await client.close()


def make_settings(url: str, environment: str = "local") -> Settings:
    return Settings(OPEN_SEARCH_DNS=url, SERVER_ENVIRONMENT=environment, JWT_SECRET="x" * 32, _env_file=None)


def by_name(found: list[Finding]) -> dict[str, Finding]:
    assert len({finding.subject for finding in found}) == len(found)
    return {finding.subject: finding for finding in found}


async def put(client: OpenSearchClient, path: str, body: object) -> None:
    answer = await client.request("PUT", path, json.dumps(body).encode(), "application/json")
    assert answer.status == 200, answer.body


async def prepare(settings: Settings) -> None:
    sink = OpenSearchSink(settings)
    try:
        await sink.prepare()
    finally:
        await sink.close()


async def deliver(settings: Settings, index: str) -> Sequence[Outcome]:
    """Deliver one event, always the same."""
    time = datetime.now(UTC)
    document = Document(time, time, "a", "user", EventInfo(page="/home", event="click"))
    sink = OpenSearchSink(settings)
    try:
        return await sink.deliver([encode_entry(Address(index, "a"), document)])
    finally:
        await sink.close()


async def test_all_is_well_with_the_template_in_place(
    client: OpenSearchClient, settings: Settings, environment: str
) -> None:
    await prepare(settings)
    await put(client, f"/{index_of(environment, datetime.now(UTC), 0)}", {})

    found = by_name(await check_opensearch(settings))

    assert set(found) == ALL | {f"opensearch {settings.open_search_dns[0].url}"}
    # Other tests leave indices whose replicas have no node, and the disk of the machine may be nearly full.
    wrong = {what for what, finding in found.items() if finding.level is not Level.OK}
    assert wrong <= {"cluster", "disks"}
    assert "has the template's mapping" in found["mapping"].text
    assert found["months"].text.startswith("1, from ")


async def test_template_of_somebody_else_that_comes_first_is_found(
    client: OpenSearchClient, settings: Settings, environment: str
) -> None:
    await prepare(settings)
    await put(
        client, f"/_index_template/{environment}", {"index_patterns": [f"events_{environment}_*"], "priority": 777}
    )
    try:
        found = by_name(await check_opensearch(settings))
    finally:
        await client.request("DELETE", f"/_index_template/{environment}")

    assert found["template"].level is Level.FAIL
    assert f"{NAME} does not count for {index_of(environment, datetime.now(UTC), 0)}: {environment} has" in (
        found["template"].text
    )


async def test_data_stream_in_the_place_of_a_month_and_its_template_are_found(
    client: OpenSearchClient, settings: Settings, environment: str
) -> None:
    await prepare(settings)
    index = index_of(environment, datetime.now(UTC), 0)
    of_streams = {"index_patterns": [f"events_{environment}_*"], "priority": 778, "data_stream": {}}
    await put(client, f"/_index_template/{environment}", of_streams)
    try:
        # The promise that is broken: the same id, before and after a rollover.
        for _ in range(2):
            assert await deliver(settings, index) == [DELIVERED]
            rolled_over = await client.request("POST", f"/{index}/_rollover")
            assert rolled_over.status == 200, rolled_over.body
        found = await check_opensearch(settings)
    finally:
        await client.request("DELETE", f"/_data_stream/{index}")
        await client.request("DELETE", f"/_index_template/{environment}")

    place, template = (finding for finding in found if finding.subject == "ids")
    assert (place.level, template.level) == (Level.WARN, Level.WARN)
    assert f"{index} is a data stream: " in place.text
    assert f"the template {environment} makes a data stream" in template.text
    # The template of streams has no mapping, so that OpenSearch guessed one.
    assert all(f"{index}-00000" in finding.text for finding in found if finding.subject == "mapping")
    assert Level.FAIL in {finding.level for finding in found if finding.subject == "mapping"}


async def test_alias_of_several_indices_in_the_place_of_a_month_is_found(
    client: OpenSearchClient, settings: Settings, environment: str
) -> None:
    await prepare(settings)
    index = index_of(environment, datetime.now(UTC), -1)
    await put(client, f"/{index}-1", {"aliases": {index: {}}})
    assert by_name(await check_opensearch(settings))["ids"].level is Level.OK
    await put(client, f"/{index}-2", {"aliases": {index: {"is_write_index": True}}})

    found = by_name(await check_opensearch(settings))

    assert found["ids"].level is Level.WARN
    assert f"{index} is an alias of 2 indices: " in found["ids"].text


async def test_mapping_and_blocks_of_this_month_are_found(
    client: OpenSearchClient, settings: Settings, environment: str
) -> None:
    index = index_of(environment, datetime.now(UTC), 0)
    await put(client, f"/{index}", {"mappings": {"properties": {"log_id": {"type": "text"}}}})
    await put(client, f"/{index}/_settings", {"index.blocks.write": True})
    old = index_of(environment, datetime.now(UTC), -5)
    await put(client, f"/{old}", {"settings": {"index.blocks.read_only": True}})

    found = by_name(await check_opensearch(settings))

    assert (found["mapping"].level, found["index blocks"].level) == (Level.FAIL, Level.FAIL)
    assert "log_id is text, not keyword" in found["mapping"].text
    assert f"{index} takes no events: index.blocks.write" in found["index blocks"].text


async def test_cluster_that_makes_no_month_is_found(own_opensearch: OpenSearchServer) -> None:
    settings = make_settings(own_opensearch.url)
    client = OpenSearchClient(Access(hosts=settings.open_search_dns), 30, 1)
    await put(client, "/some", {"settings": {"number_of_shards": 1, "number_of_replicas": 0}})
    limits = {"action.auto_create_index": "false", "cluster.max_shards_per_node": "1"}
    await put(client, "/_cluster/settings", {"persistent": {"cluster.blocks.read_only": True, **limits}})
    await client.close()
    found = await check_opensearch(settings)

    blocks = [finding for finding in found if finding.subject == "cluster blocks"]
    assert [finding.level for finding in blocks] == [Level.FAIL, Level.FAIL]
    assert any("cluster.blocks.read_only is set" in finding.text for finding in blocks)
    assert any("action.auto_create_index" in finding.text for finding in blocks)
    (shards,) = (finding for finding in found if finding.subject == "shards")
    assert (shards.level, " shards of 1 (c" in shards.text) == (Level.FAIL, True)


async def test_host_that_is_away_hides_nothing_of_the_others(opensearch: OpenSearchAddress) -> None:
    away = f"http://{HOST}:{free_ports(1)[0]}"
    settings = make_settings(f"{away},{opensearch.url}")

    found = by_name(await check_opensearch(settings))

    assert found[f"opensearch {away}"].level is Level.FAIL
    assert "start OpenSearch" in found[f"opensearch {away}"].advice
    assert found[f"opensearch {opensearch.url}"].level is Level.OK
    assert set(found) > ALL


async def test_tls_that_is_not_there_names_the_setting(opensearch: OpenSearchAddress) -> None:
    settings = make_settings(opensearch.url.replace("http://", "https://user:hunter2@"))

    found = await check_opensearch(settings)

    assert [finding.level for finding in found] == [Level.FAIL, Level.FAIL]
    assert found[0].advice == "it speaks no TLS: http:// in OPEN_SEARCH_DNS"
    assert "hunter2" not in repr(found)


async def test_clocks_of_the_nodes_are_compared_with_ours(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_context(settings.model_copy(update={"server_port": 0}))

    (agrees,) = await asyncio.to_thread(lambda: list(clocks.check(context)))
    monkeypatch.setattr(clocks, "OFFSET_S_MAX", 0)
    (agrees_exactly,) = await asyncio.to_thread(lambda: list(clocks.check(context)))

    assert (agrees.level, agrees_exactly.level) == (Level.OK, Level.OK)
    assert agrees.text.startswith("OpenSearch node ")
    assert agrees.text.endswith("'s agrees with ours")
