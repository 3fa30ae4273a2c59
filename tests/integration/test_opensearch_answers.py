"""The sink gives the right outcome for each answer that a real OpenSearch can be made to give."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Raw

from forebay.document import Document, EventInfo, encode_entry
from forebay.model import DELIVERED, Address, Entry, Outcome, Verdict
from forebay.setting_values import SinkHost
from forebay.settings import Settings
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.sifting import Sifting
from testbed.servers.fixtures import StartOpenSearch
from testbed.servers.opensearch import OpenSearchServer

MakeEntry = Callable[..., Entry]


@pytest.fixture
def server(own_opensearch: OpenSearchServer) -> OpenSearchServer:
    return own_opensearch


@pytest.fixture
def index() -> str:
    return f"events_answers-{uuid.uuid4().hex[:8]}_2026-11"


@pytest.fixture
def make_entry(index: str) -> MakeEntry:
    def make(log_id: str, into: str = index) -> Entry:
        now = datetime.now(UTC)
        info = EventInfo(page="/home", event="click", param=Raw(b"{}"))
        return encode_entry(Address(into, log_id), Document(now, now, log_id, "user", info))

    return make


@asynccontextmanager
async def sink_at(url: str, **settings: Any) -> AsyncIterator[OpenSearchSink]:
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=(SinkHost(url),), _env_file=None, **settings))
    try:
        yield sink
    finally:
        await sink.close()


async def ask(method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer


@asynccontextmanager
async def cluster_setting(server: OpenSearchServer, name: str, value: object) -> AsyncIterator[None]:
    url = f"{server.url}/_cluster/settings"
    await ask("PUT", url, {"persistent": {name: value}})
    try:
        yield
    finally:
        await ask("PUT", url, {"persistent": {name: None}})


def told(outcomes: Sequence[Outcome]) -> list[tuple[Verdict, str, bool]]:
    return [(outcome.verdict, outcome.error_type, outcome.whole) for outcome in outcomes]


async def test_the_cause_behind_a_refusal_is_told(server: OpenSearchServer, make_entry: MakeEntry) -> None:
    twice = make_entry("twice").replace(b'"param":{}', b'"param":{"a":1,"a":2}')

    async with sink_at(server.url) as sink:
        taken, refused = await sink.deliver([make_entry("once"), twice])

    assert taken == DELIVERED
    assert (refused.verdict, refused.status) == (Verdict.REFUSED, 400)
    assert "Duplicate field 'a'" in refused.reason


@pytest.mark.parametrize("breaker", ["network.breaker.inflight_requests.limit", "indices.breaker.total.limit"])
async def test_a_circuit_breaker_refuses_the_bulk_as_a_whole_for_now(
    server: OpenSearchServer, make_entry: MakeEntry, breaker: str
) -> None:
    async with sink_at(server.url) as sink:
        assert await sink.deliver([make_entry("before")]) == [DELIVERED]
        async with cluster_setting(server, breaker, "1b"):
            outcomes = await sink.deliver([make_entry("a"), make_entry("b")])
        assert told(outcomes) == [(Verdict.RETRY, "circuit_breaking_exception", True)] * 2
        assert await sink.deliver([make_entry("a"), make_entry("b")]) == [DELIVERED] * 2


@pytest.mark.parametrize(
    "refusal",
    [
        ("action.auto_create_index", "false", Verdict.REFUSED, "index_not_found_exception", "action.auto_create_index"),
        ("cluster.max_shards_per_node", 1, Verdict.PAUSE, "validation_exception", "forebay index prune"),
    ],
)
async def test_an_index_that_may_not_be_made_refuses_its_events_alone(
    server: OpenSearchServer, make_entry: MakeEntry, index: str, refusal: tuple[str, object, Verdict, str, str]
) -> None:
    setting, value, verdict, error_type, advice = refusal
    async with sink_at(server.url) as sink:
        assert await sink.deliver([make_entry("before")]) == [DELIVERED]
        async with cluster_setting(server, setting, value):
            delivered, refused = await sink.deliver([make_entry("old"), make_entry("new", f"{index}-next")])
            assert delivered == DELIVERED
            assert told([refused]) == [(verdict, error_type, False)]
            assert advice in refused.advice
        assert await sink.deliver([make_entry("new", f"{index}-next")]) == [DELIVERED]


@pytest.mark.parametrize("block", ["read_only", "read_only_allow_delete"])
async def test_a_cluster_that_is_read_only_refuses_the_bulk_as_a_whole(
    server: OpenSearchServer, make_entry: MakeEntry, block: str
) -> None:
    async with sink_at(server.url) as sink:
        assert await sink.deliver([make_entry("before")]) == [DELIVERED]
        async with cluster_setting(server, f"cluster.blocks.{block}", value=True):
            outcomes = await sink.deliver([make_entry("a"), make_entry("b")])
        assert told(outcomes) == [(Verdict.REFUSED, "cluster_block_exception", True)] * 2
        assert "cluster.blocks" in outcomes[0].advice
        assert await sink.deliver([make_entry("a")]) == [DELIVERED]


async def test_a_shard_that_is_missing_holds_up_its_events_alone(
    server: OpenSearchServer, make_entry: MakeEntry, index: str
) -> None:
    nowhere = {"settings": {"index.routing.allocation.require._name": "no such node"}}
    await ask("PUT", f"{server.url}/{index}-red?wait_for_active_shards=0", nowhere)
    async with sink_at(server.url, bulk_timeout_s=3) as sink:
        outcomes = await sink.deliver([make_entry("a"), make_entry("b", f"{index}-red"), make_entry("c")])
    assert outcomes[::2] == [DELIVERED] * 2
    assert told(outcomes[1:2]) == [(Verdict.REFUSED, "unavailable_shards_exception", False)]
    assert "allocation" in outcomes[1].advice


async def test_an_alias_without_an_index_to_write_to_pauses(
    server: OpenSearchServer, make_entry: MakeEntry, index: str
) -> None:
    for number in (1, 2):
        await ask("PUT", f"{server.url}/{index}-{number}", {"aliases": {index: {}}})
    async with sink_at(server.url) as sink:
        outcomes = await sink.deliver([make_entry("a")])
    assert told(outcomes) == [(Verdict.PAUSE, "illegal_argument_exception", False)]
    assert "is_write_index" in outcomes[0].advice


async def test_an_ingest_pipeline_that_is_missing_pauses(
    server: OpenSearchServer, make_entry: MakeEntry, index: str
) -> None:
    await ask("PUT", f"{server.url}/{index}", {"settings": {"index.default_pipeline": "missing"}})
    async with sink_at(server.url) as sink:
        outcomes = await sink.deliver([make_entry("a")])
    assert told(outcomes) == [(Verdict.PAUSE, "illegal_argument_exception", False)]
    assert "pipeline" in outcomes[0].advice


@pytest.mark.parametrize(
    ("mappings", "error_type"),
    [
        ({"properties": {"@timestamp": {"type": "boolean"}}}, "mapper_parsing_exception"),
        ({"dynamic": "strict", "properties": {"@timestamp": {"type": "date"}}}, "strict_dynamic_mapping_exception"),
    ],
)
async def test_a_mapping_that_clashes_refuses_its_events_and_no_others(
    server: OpenSearchServer, make_entry: MakeEntry, index: str, mappings: Mapping[str, Any], error_type: str
) -> None:
    # Of an index that the template is not for.
    await ask("PUT", f"{server.url}/other-{index}", {"mappings": mappings})
    async with sink_at(server.url) as sink:
        outcomes = await sink.deliver([make_entry("a"), make_entry("b", f"other-{index}"), make_entry("c")])
    assert outcomes[::2] == [DELIVERED] * 2
    assert told(outcomes[1:2]) == [(Verdict.REFUSED, error_type, False)]
    assert outcomes[1].reason


async def test_of_a_bulk_that_opensearch_cannot_read_the_culprits_alone_are_refused(
    server: OpenSearchServer, make_entry: MakeEntry, index: str
) -> None:
    entries = [make_entry(str(number)) for number in range(20)]
    # Both are refused with the bulk as a whole: an action that is no JSON, and an `_id` over 512 bytes.
    entries[3] = b"no action\n{}\n"
    entries[16] = b'{"create":{"_index":"%b","_id":"%b"}}\n{}\n' % (index.encode(), b"x" * 513)
    async with sink_at(server.url) as sink:
        outcomes = await Sifting(sink, lambda _: False).deliver(1, entries, 0)
    refused = {number: outcome for number, outcome in enumerate(outcomes) if outcome != DELIVERED}
    assert list(refused) == [3, 16]
    assert {(outcome.verdict, outcome.status, outcome.whole) for outcome in refused.values()} == {
        (Verdict.REFUSED, 400, False)
    }
    assert refused[16].error_type == "action_request_validation_exception"


async def test_a_path_that_leads_nowhere_is_refused_and_the_setting_named(
    server: OpenSearchServer, make_entry: MakeEntry
) -> None:
    async with sink_at(f"{server.url}/a/b", index_template=False) as sink:
        (outcome,) = await sink.deliver([make_entry("a")])
    assert (outcome.verdict, outcome.whole) == (Verdict.REFUSED, True)
    assert "OPEN_SEARCH_DNS" in outcome.advice


async def test_a_bulk_that_may_not_name_its_indices_is_refused(
    start_opensearch: StartOpenSearch, make_entry: MakeEntry
) -> None:
    server = start_opensearch({"rest.action.multi.allow_explicit_index": "false"})
    async with sink_at(server.url) as sink:
        (outcome,) = await sink.deliver([make_entry("a")])
    assert told([outcome]) == [(Verdict.REFUSED, "illegal_argument_exception", True)]
    assert "allow_explicit_index" in outcome.advice


async def test_a_cluster_that_waits_for_more_nodes_is_waited_for(opensearch_home: Path, make_entry: MakeEntry) -> None:
    with OpenSearchServer(opensearch_home) as server:
        server.launch({"gateway.recover_after_data_nodes": "2"})
        async with sink_at(server.url, index_template=False, bulk_timeout_s=5) as sink, asyncio.timeout(120):
            outcomes = await sink.deliver([make_entry("a")])
            while outcomes[0].error_type == "unreachable":
                await asyncio.sleep(0.2)
                outcomes = await sink.deliver([make_entry("a")])
    assert told(outcomes) == [(Verdict.RETRY, "cluster_block_exception", True)]


async def test_an_event_without_an_id_of_ours_gets_one_of_opensearch_each_time(
    server: OpenSearchServer, make_entry: MakeEntry, index: str
) -> None:
    async with sink_at(server.url, open_search_auto_id=True) as sink:
        for _ in range(2):
            assert await sink.deliver([make_entry("a")]) == [DELIVERED]
    await ask("POST", f"{server.url}/{index}/_refresh")
    hits = (await ask("POST", f"{server.url}/{index}/_search"))["hits"]["hits"]
    assert [hit["_source"]["log_id"] for hit in hits] == ["a", "a"]
    assert "a" not in {hit["_id"] for hit in hits}
