"""UBI's collector sends to Forebay, and the queries of UBI's documentation are answered from what arrived."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.settings import Settings
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.opensearch.ubi_templates import UBI_TEMPLATES
from testbed.servers.chromium import ChromiumMissingError, PageServer, open_chromium
from testbed.servers.fixtures import report_missing
from testbed.servers.forebay import ForebayServer
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.opensearch_admin import call
from testbed.traffic.index import Index
from testbed.traffic.ubi import Shop, make_attributes, make_body, make_event, make_query

ARRIVAL_S = 30
QUICK = {
    "SERVER_ENVIRONMENT": "ubi",
    "FOREBAY_BULK_INTERVAL_S": "0.2",
    "FOREBAY_RETRY_DELAY_S_MAX": "1",
    "FOREBAY_RETRY_INTERVAL_S": "1",
}

# The mappings of the UBI plugin, as far as they may refuse a document.
PLUGIN: dict[str, Any] = {
    "ubi_events": {
        "properties": {
            "action_name": {"type": "keyword", "ignore_above": 100},
            "user_query": {"type": "keyword"},
            "timestamp": {"type": "date", "format": "strict_date_time", "ignore_malformed": True},
            "event_attributes": {
                "dynamic": True,
                "properties": {"position": {"properties": {"ordinal": {"type": "integer"}}}},
            },
        }
    },
    "ubi_queries": {
        "dynamic": False,
        "properties": {
            "timestamp": {"type": "date", "format": "strict_date_time"},
            "query_id": {"type": "keyword", "ignore_above": 100},
            "user_query": {"type": "keyword"},
            "query_attributes": {"type": "flat_object"},
        },
    },
}


Start = Callable[..., ForebayServer]


@pytest.fixture
def start(own_opensearch: OpenSearchServer, tmp_path: Path) -> Iterator[Start]:
    servers = []

    def start(**more: str) -> ForebayServer:
        server = ForebayServer(tmp_path, {"OPEN_SEARCH_DNS": own_opensearch.url, **QUICK, **more})
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


async def read(opensearch: OpenSearchServer, index: str, wanted: int) -> list[dict[str, Any]]:
    """Wait for so many documents, and return them without what Forebay has added; one too many is an error."""
    deadline = time.monotonic() + ARRIVAL_S
    while True:
        # A pattern, as the index may not be there yet.
        stored = Index(opensearch.url, "", f"{index}*")
        await stored.count()  # which refreshes it
        found = [document async for _, document in stored.documents()]
        if len(found) >= wanted or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    assert len(found) == wanted
    assert all(document.pop("forebay")["source"] == "shop" for document in found)
    return found


async def ask(opensearch: OpenSearchServer, index: str, body: dict[str, Any]) -> Any:
    return await call(opensearch.url, "POST", f"/{index}/_search", body)


def by_name(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)


async def mapping_of(opensearch: OpenSearchServer, index: str) -> Any:
    return (await call(opensearch.url, "GET", f"/{index}/_mapping"))[index]["mappings"]


# What arrives


async def test_events_and_queries_arrive_as_they_were_sent(start: Start, own_opensearch: OpenSearchServer) -> None:
    shop = Shop(start())
    events = [
        make_event("add_to_cart", "c1", "q1", event_attributes=make_attributes("0884", 3, price=12.5), message="Größe"),
        make_event("logout", "c1", None),
    ]
    queries = [make_query("notebook", "c1", "q1", query_attributes={"experiment": "e1"})]
    for event in events:
        answer = shop.track_event(event)
        assert (answer.status, answer.json["accepted"]) == (200, 1)
    for query in queries:
        assert shop.track_query(query).status == 200

    assert sorted(await read(own_opensearch, "ubi_events", 2), key=by_name) == sorted(events, key=by_name)
    assert await read(own_opensearch, "ubi_queries", 1) == queries
    assert await read(own_opensearch, "events_*", 0) == []
    for index, template in UBI_TEMPLATES.items():
        found = await mapping_of(own_opensearch, index)
        for name, field in template.body["template"]["mappings"]["properties"].items():
            if "type" in field and field["type"] != "object":
                assert found["properties"][name]["type"] == field["type"]


async def test_the_queries_of_the_documentation_are_answered(start: Start, own_opensearch: OpenSearchServer) -> None:
    shop = Shop(start())
    journey = ["on_search", "product_hover", "item_click", "add_to_cart", "purchase"]
    for number, action in enumerate(journey):
        detail = {"cost": 100.0 + number, "margin": 10 * number}
        attributes = make_attributes("0884", 1, object_detail=detail) | {"session_id": "s1", "dwell_time": 1.5}
        message = "notebook" if action == "on_search" else ""
        time_ = f"2026-11-26T19:02:4{number}.000Z"
        shop.track_event(make_event(action, "c1", "q1", timestamp=time_, message=message, event_attributes=attributes))
    shop.track_event(make_event("on_search", "c2", "q2", message="notebook", event_attributes={"result_count": 0}))
    shop.track_event(make_event("on_search", "c2", "q3", message="bed", event_attributes={"result_count": 7}))
    shop.track_event(make_event("logout", "c3", None))
    shop.track_query(make_query("notebook", "c1", "q1", query_response_hit_ids=["0884"]))
    shop.track_query(make_query("notebook", "c2", "q2"))
    shop.track_query(make_query("bed", "c2", "q3", query_response_hit_ids=["1", "2"]))
    await read(own_opensearch, "ubi_events", 8)
    await read(own_opensearch, "ubi_queries", 3)

    # dsl-queries.md: the types of events.
    answer = await ask(
        own_opensearch,
        "ubi_events",
        {"size": 0, "aggs": {"event_types": {"terms": {"field": "action_name", "size": 10}}}},
    )
    found = {bucket["key"]: bucket["doc_count"] for bucket in answer["aggregations"]["event_types"]["buckets"]}
    assert found == {**dict.fromkeys(journey, 1), "on_search": 3, "logout": 1}

    # sql-queries.md, as the query language of OpenSearch has them. Queries without results:
    missing = {"bool": {"must_not": {"exists": {"field": "query_response_hit_ids"}}}}
    assert (await ask(own_opensearch, "ubi_queries", {"query": missing}))["hits"]["total"]["value"] == 1
    some = {"range": {"event_attributes.result_count": {"gt": 0}}}
    assert (await ask(own_opensearch, "ubi_events", {"query": some}))["hits"]["total"]["value"] == 1

    # Trending queries, by those of the server and by the events of clients:
    counts = {"size": 0, "aggs": {"found": {"terms": {"field": "user_query"}}}}
    answer = await ask(own_opensearch, "ubi_queries", counts)
    assert {each["key"]: each["doc_count"] for each in answer["aggregations"]["found"]["buckets"]} == {
        "notebook": 2,
        "bed": 1,
    }
    searches = {
        "size": 0,
        "query": {"term": {"action_name": "on_search"}},
        "aggs": {"found": {"terms": {"field": "message"}}},
    }
    answer = await ask(own_opensearch, "ubi_events", searches)
    assert {each["key"]: each["doc_count"] for each in answer["aggregations"]["found"]["buckets"]} == {
        "notebook": 2,
        "bed": 1,
    }

    # Costs and margins of what was acted on, in fields that no mapping names:
    averages = {
        "cost": {"avg": {"field": "event_attributes.object.object_detail.cost"}},
        "margin": {"avg": {"field": "event_attributes.object.object_detail.margin"}},
    }
    by_action = {"size": 0, "aggs": {"found": {"terms": {"field": "action_name"}, "aggs": averages}}}
    answer = await ask(own_opensearch, "ubi_events", by_action)
    purchase = next(each for each in answer["aggregations"]["found"]["buckets"] if each["key"] == "purchase")
    assert (purchase["cost"]["value"], purchase["margin"]["value"]) == (104.0, 40.0)

    # A search journey, in its order, and a user's sessions:
    journey_query = {"query": {"term": {"query_id": "q1"}}, "sort": "timestamp"}
    answer = await ask(own_opensearch, "ubi_events", journey_query)
    assert [hit["_source"]["action_name"] for hit in answer["hits"]["hits"]] == journey
    sessions = {
        "query": {
            "bool": {"filter": [{"term": {"client_id": "c1"}}, {"exists": {"field": "event_attributes.dwell_time"}}]}
        },
        "sort": ["query_id", "timestamp"],
    }
    answer = await ask(own_opensearch, "ubi_events", sessions)
    assert [hit["_source"]["event_attributes"]["session_id"] for hit in answer["hits"]["hits"]] == ["s1"] * 5

    # Those who logged out without a query:
    logout = {"bool": {"filter": {"term": {"action_name": "logout"}}, "must_not": {"exists": {"field": "query_id"}}}}
    group = {"aggs": {"clients": {"multi_terms": {"terms": [{"field": "client_id"}, {"field": "session_id.keyword"}]}}}}
    answer = await ask(own_opensearch, "ubi_events", {"size": 0, "query": logout} | group)
    assert [each["key"] for each in answer["aggregations"]["clients"]["buckets"]] == [["c3", "session of c3"]]


async def test_with_opensearch_away_and_the_server_killed_each_arrives_once(
    start: Start, own_opensearch: OpenSearchServer
) -> None:
    server = start()
    shop = Shop(server)
    events = [make_event("click", f"c{number}", "q1", number=number) for number in range(300)]
    for number, event in enumerate(events):
        if number == 100:
            own_opensearch.kill()
        if number == 200:
            server.kill()
            server.start()
        assert shop.track_event(event).status == 200
        # The page does not know whether its first request arrived, and sends it again.
        if number % 3 == 0:
            assert shop.track_event(event).status == 200
    own_opensearch.start()
    found = await read(own_opensearch, "ubi_events", 300)
    assert Counter(map(by_name, found)) == Counter(map(by_name, events))


# Events that OpenSearch does not take as they are


async def test_an_odd_event_arrives_and_costs_no_other(start: Start, own_opensearch: OpenSearchServer) -> None:
    shop = Shop(start())
    attributes = make_attributes("0884", 1)
    shop.track_event(make_event("click", "c1", "q1", event_attributes=attributes, extra={"a": 1}, is_new=True))
    await read(own_opensearch, "ubi_events", 1)
    odd = [
        make_event("click", "c2", "q1", extra="no object"),
        make_event("click", "c3", "q1", is_new="no boolean"),
        make_event("click", "c4", "q1", event_attributes={f"field {number}": number for number in range(2_000)}),
        make_event("click", "c5", "q1", event_attributes="no object"),
        make_event("click", "c6", "q1", message={"no": "text"}),
        make_event("click", "c7", "q1", **{".": 1, "": 2, "a..b": 3}),
        make_event("click", "c8", "q1", timestamp="yesterday", event_attributes={"position": {"ordinal": "third"}}),
        make_event("click", "c9", "q1", event_attributes={"position": {"ordinal": {"index": 3}}}),
        make_event("click", "c10", "q1", user_query="x" * 40_000),
    ]
    for event in odd:
        assert shop.track_event(event).status == 200
        # Those that are taken are the evidence that an odd one is itself at fault.
        shop.track_event(make_event("view", "c1", "q1"))
    found = await read(own_opensearch, "ubi_events", 1 + 2 * len(odd))
    by_client = {document["client_id"]: document for document in found}
    for event in odd:
        document = by_client[event["client_id"]]
        for moved in document.pop("unindexed", []):
            put_back(document, moved["path"], json.loads(moved["json"]))
        assert document == event


def put_back(document: Any, pointer: str, value: Any) -> None:
    *parents, name = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for parent in parents:
        document = document[parent]
    document[name] = value


async def test_indices_that_the_plugin_has_made_stay_its_own_and_take_everything(
    start: Start, own_opensearch: OpenSearchServer
) -> None:
    for index, mapping in PLUGIN.items():
        await call(own_opensearch.url, "PUT", f"/{index}", {"mappings": mapping})
    shop = Shop(start())
    shop.track_query(make_query("toner", "c1", "q1"))
    shop.track_query(make_query("toner", "c2", "q2", timestamp=1_716_408_298_072))
    shop.track_event(make_event("click", "c1", "q1"))
    shop.track_event(make_event("click", "c2", "q2", user_query="x" * 40_000))
    await asyncio.sleep(1)
    shop.track_query(make_query("toner", "c1", "q3"))
    shop.track_event(make_event("view", "c1", "q1"))

    queries = {query["query_id"]: query for query in await read(own_opensearch, "ubi_queries", 3)}
    assert queries["q2"]["timestamp"] == "2024-05-22T20:04:58.072Z"
    kept = {each["path"]: json.loads(each["json"]) for each in queries["q2"]["unindexed"]}
    assert kept == {"/timestamp": 1_716_408_298_072, "/object_id_field": "ean"}
    events = {event["client_id"] + event["action_name"]: event for event in await read(own_opensearch, "ubi_events", 3)}
    assert "user_query" not in events["c2click"]
    assert (await mapping_of(own_opensearch, "ubi_queries"))["properties"] == PLUGIN["ubi_queries"]["properties"]
    found = (await mapping_of(own_opensearch, "ubi_events"))["properties"]
    plugins = PLUGIN["ubi_events"]["properties"]
    assert {name: found[name]["type"] for name in ("action_name", "user_query", "timestamp")} == {
        name: plugins[name]["type"] for name in ("action_name", "user_query", "timestamp")
    }


async def test_no_month_is_listed_or_deleted_for_it(start: Start, own_opensearch: OpenSearchServer) -> None:
    shop = Shop(start())
    shop.track_event(make_event("click", "c1", "q1"))
    await read(own_opensearch, "ubi_events", 1)
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=own_opensearch.url, _env_file=None))
    try:
        assert await sink.list_months() == []
        with pytest.raises(ValueError, match="is no month"):
            await sink.delete_month("ubi_events")
    finally:
        await sink.close()


# A page in a browser

PAGE = """<!doctype html><title>A shop</title><script>
// As axios does in a browser.
const post = (url, body) => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", url, true);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Content-Type", "application/json");
    request.onloadend = () => resolve([request.status, request.responseText]);
    request.send(body);
});
</script>"""


async def test_a_page_of_another_origin_sends_after_a_preflight(start: Start, own_opensearch: OpenSearchServer) -> None:
    with PageServer(PAGE) as pages:
        server = start(FOREBAY_CORS_ORIGINS=pages.origin())
        shop = Shop(server)
        event = make_event("click", "c1", "q1")
        try:
            async with open_chromium() as chromium:
                page = await chromium.new_page()
                await page.goto(f"{pages.origin()}/")
                url = f"{server.url}{shop.base}/ubi_events"
                status, text = await page.evaluate("([url, body]) => post(url, body)", [url, make_body(event).decode()])
        except ChromiumMissingError as error:
            missing = str(error)
        else:
            assert (status, json.loads(text)["accepted"]) == (200, 1)
            assert await read(own_opensearch, "ubi_events", 1) == [event]
            assert shop.token.rpartition(".")[2] not in server.log + server.output + text
            return
    report_missing(missing)
