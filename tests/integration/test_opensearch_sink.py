"""The sink delivers to a real OpenSearch, puts its template in place, and outlives its failures."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from msgspec import Raw

from forebay.document import Document, EventInfo, encode_entry
from forebay.model import DELIVERED, DUPLICATE, Address, Entry, Verdict
from forebay.setting_values import SinkHost
from forebay.settings import Settings
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.opensearch.template import PATH as TEMPLATE_PATH
from forebay.sinks.sifting import Sifting
from testbed.servers.fixtures import OpenSearchAddress, StartOpenSearch
from testbed.servers.opensearch import OpenSearchServer
from testbed.traffic.index import Index

MakeEntry = Callable[..., Entry]


@pytest.fixture
def index() -> str:
    return f"events_sink-{uuid.uuid4().hex[:8]}_2026-11"


@pytest.fixture
def make_entry(index: str) -> MakeEntry:
    def make(log_id: str, param: bytes = b"{}", timestamp: datetime | None = None) -> Entry:
        now = datetime.now(UTC)
        info = EventInfo(page="/home", event="click", param=Raw(param))
        document = Document(timestamp=timestamp or now, received_at=now, log_id=log_id, user_id="user", event_info=info)
        return encode_entry(Address(index, log_id), document)

    return make


@asynccontextmanager
async def sink_at(url: str, **settings: Any) -> AsyncIterator[OpenSearchSink]:
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=(SinkHost(url),), **{"bulk_timeout_s": 10, **settings}))
    try:
        yield sink
    finally:
        await sink.close()


async def ask(method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body) as response:
        return await response.json()


async def test_an_event_sent_twice_is_delivered_and_then_a_duplicate(
    opensearch: OpenSearchAddress, make_entry: MakeEntry, index: str
) -> None:
    entry = make_entry("a", b'{"key1":"value1"}')
    async with sink_at(opensearch.url) as sink:
        assert await sink.deliver([entry]) == [DELIVERED]
        assert await sink.deliver([entry, make_entry("b")]) == [DUPLICATE, DELIVERED]
    assert (await ask("POST", f"{opensearch.url}/{index}/_refresh"))["_shards"]["failed"] == 0
    found = await ask(
        "POST", f"{opensearch.url}/{index}/_search", {"query": {"term": {"event_info.param.key1": "value1"}}}
    )
    assert [hit["_id"] for hit in found["hits"]["hits"]] == ["a"]


async def test_the_template_is_in_place_before_the_first_document_makes_an_index(
    own_opensearch: OpenSearchServer, make_entry: MakeEntry, index: str
) -> None:
    async with sink_at(own_opensearch.url) as sink:
        assert await sink.deliver([make_entry("a")]) == [DELIVERED]
    mapping = (await ask("GET", f"{own_opensearch.url}/{index}/_mapping"))[index]["mappings"]
    assert mapping["dynamic"] == "false"
    assert mapping["properties"]["@timestamp"] == {"type": "date"}
    assert mapping["properties"]["event_info"]["properties"]["param"] == {"type": "flat_object"}


@pytest.mark.parametrize("is_tried", [False, True], ids=["quiet meanwhile", "tried meanwhile"])
async def test_an_opensearch_that_comes_back_without_its_data_has_the_template_before_the_first_document(
    own_opensearch: OpenSearchServer, make_entry: MakeEntry, index: str, *, is_tried: bool
) -> None:
    async with sink_at(own_opensearch.url) as sink:
        assert await sink.deliver([make_entry("before")]) == [DELIVERED]
        own_opensearch.stop()
        if is_tried:
            assert (await sink.deliver([make_entry("away")]))[0].verdict is Verdict.RETRY
        own_opensearch.lose_data()
        own_opensearch.start()
        # By a mapping guessed from the first, the second would be refused.
        entries = [make_entry("number", b'{"a":1}'), make_entry("object", b'{"a":{"b":1}}')]
        assert await sink.deliver(entries) == [DELIVERED] * 2
    mapping = (await ask("GET", f"{own_opensearch.url}/{index}/_mapping"))[index]["mappings"]
    assert mapping["dynamic"] == "false"
    assert mapping["properties"]["event_info"]["properties"]["param"] == {"type": "flat_object"}


async def test_a_template_that_is_there_stays_as_it_is(own_opensearch: OpenSearchServer) -> None:
    url = own_opensearch.url + TEMPLATE_PATH
    async with sink_at(own_opensearch.url) as sink:
        assert "put in place" in await sink.prepare()
    edited = (await ask("GET", url))["index_templates"][0]["index_template"]
    edited["priority"] = 101
    await ask("PUT", url, edited)
    async with sink_at(own_opensearch.url) as sink:
        assert "there already" in await sink.prepare()
    kept = (await ask("GET", url))["index_templates"][0]["index_template"]
    assert kept["priority"] == 101


async def test_without_its_setting_no_template_is_put(own_opensearch: OpenSearchServer, make_entry: MakeEntry) -> None:
    async with sink_at(own_opensearch.url, index_template=False) as sink:
        await sink.open()
        assert await sink.deliver([make_entry("a")]) == [DELIVERED]
    assert "error" in await ask("GET", own_opensearch.url + TEMPLATE_PATH)


async def test_an_event_that_opensearch_refuses_is_refused_alone_with_the_reason(
    opensearch: OpenSearchAddress, make_entry: MakeEntry
) -> None:
    twice_the_key = make_entry("bad", b'{"a":1,"a":2}')
    too_long = make_entry("long", b'{"a":"%b"}' % (b"x" * 40_000))
    async with sink_at(opensearch.url) as sink:
        outcomes = await sink.deliver([make_entry("good"), twice_the_key, make_entry("fine"), too_long])
    assert [outcome.verdict for outcome in outcomes] == [
        Verdict.DELIVERED,
        Verdict.REFUSED,
        Verdict.DELIVERED,
        Verdict.REFUSED,
    ]
    assert outcomes[1].error_type == "mapper_parsing_exception"
    assert "event_info.param" in outcomes[1].reason
    assert "immense term" in outcomes[3].reason


@pytest.mark.parametrize("block", ["write", "read_only", "read_only_allow_delete"])
async def test_a_blocked_index_pauses_and_kills_nothing(
    opensearch: OpenSearchAddress, make_entry: MakeEntry, index: str, block: str
) -> None:
    async with sink_at(opensearch.url) as sink:
        assert await sink.deliver([make_entry("before")]) == [DELIVERED]
        await ask("PUT", f"{opensearch.url}/{index}/_settings", {f"index.blocks.{block}": True})
        (outcome,) = await sink.deliver([make_entry("during")])
        assert (outcome.verdict, outcome.error_type) == (Verdict.PAUSE, "cluster_block_exception")
        await ask("PUT", f"{opensearch.url}/{index}/_settings", {f"index.blocks.{block}": None})
        assert await sink.deliver([make_entry("during")]) == [DELIVERED]


async def test_a_closed_index_pauses(opensearch: OpenSearchAddress, make_entry: MakeEntry, index: str) -> None:
    async with sink_at(opensearch.url) as sink:
        assert await sink.deliver([make_entry("before")]) == [DELIVERED]
        await ask("POST", f"{opensearch.url}/{index}/_close")
        (outcome,) = await sink.deliver([make_entry("during")])
    assert (outcome.verdict, outcome.error_type) == (Verdict.PAUSE, "index_closed_exception")


async def test_a_bulk_that_is_too_large_is_split_and_one_event_that_is_too_large_is_refused(
    start_opensearch: StartOpenSearch, make_entry: MakeEntry
) -> None:
    server = start_opensearch({"http.max_content_length": "64kb"})
    entries = [make_entry(str(number), b'{"a":"%b"}' % (b"x" * 10_000)) for number in range(20)]
    large = make_entry("large", b'{"a":[%b]}' % b",".join([b'"%b"' % (b"x" * 10_000)] * 10))
    async with sink_at(server.url) as sink:
        outcomes = await Sifting(sink, lambda _: False).deliver(1, [*entries[:7], large, *entries[7:]], 0)
    assert (outcomes[7].verdict, outcomes[7].status, outcomes[7].whole) == (Verdict.REFUSED, 413, False)
    assert outcomes[7].error_type == "http_413"
    assert [*outcomes[:7], *outcomes[8:]] == [DELIVERED] * 20


async def test_a_whole_request_refused_for_lack_of_memory_is_tried_again(
    start_opensearch: StartOpenSearch, make_entry: MakeEntry
) -> None:
    server = start_opensearch({"indexing_pressure.memory.limit": "1kb"})
    async with sink_at(server.url) as sink:
        outcomes = await sink.deliver([make_entry(str(number)) for number in range(50)])
    assert {outcome.verdict for outcome in outcomes} == {Verdict.RETRY}, outcomes[0]
    assert "rejected_execution_exception" in outcomes[0].error_type


async def test_an_opensearch_that_is_away_or_does_not_answer_is_tried_again(
    own_opensearch: OpenSearchServer, make_entry: MakeEntry
) -> None:
    async with sink_at(own_opensearch.url, bulk_timeout_s=0.5, index_template=False) as sink:
        own_opensearch.pause()
        (silent,) = await sink.deliver([make_entry("a")])
        own_opensearch.kill()
        (refused,) = await sink.deliver([make_entry("a")])
    assert (silent.verdict, refused.verdict) == (Verdict.RETRY, Verdict.RETRY)
    assert "no answer in time" in silent.reason
    assert "Cannot connect" in refused.reason


async def test_of_two_nodes_one_that_is_killed_costs_no_event_and_is_used_again_when_it_is_back(
    opensearch: OpenSearchAddress, own_opensearch: OpenSearchServer, make_entry: MakeEntry
) -> None:
    hosts = (SinkHost(own_opensearch.url), SinkHost(opensearch.url))
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=hosts, bulk_timeout_s=10))
    try:
        for number in range(4):
            assert await sink.deliver([make_entry(f"before-{number}")]) == [DELIVERED]
        own_opensearch.kill()
        for number in range(20):
            assert await sink.deliver([make_entry(f"down-{number}")]) == [DELIVERED]
        own_opensearch.start()
        index = Index(own_opensearch.url, "", "events_*")
        async with asyncio.timeout(60):
            number = 0
            while await index.count() < 3:
                number += 1
                assert await sink.deliver([make_entry(f"after-{number}")]) == [DELIVERED]
                await asyncio.sleep(0.1)
    finally:
        await sink.close()
