"""Events that the sink delivered to a real OpenSearch are found again by their values."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import Raw

from forebay.document import Document, EventInfo, encode_entry
from forebay.model import DELIVERED, Address, Entry
from forebay.setting_values import SinkHost
from forebay.settings import Settings
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.reader import OpenSearchReader
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.port import Query
from testbed.servers.fixtures import OpenSearchAddress

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PARAM = b"""{"text":"a b","whole":7,"fraction":1.50,"yes":true,"deep":{"er":"down"},"list":["one",2],"none":null}"""


def make_entry(environment: str, log_id: str, received_at: datetime = NOON, page: str = "/home") -> Entry:
    info = EventInfo(page=page, event="click", param=Raw(PARAM), extra={"unknown": Raw(b'"field"')})
    index = f"events_{environment}_{received_at:%Y-%m}"
    return encode_entry(Address(index, log_id), Document(received_at, received_at, log_id, "user", info))


@pytest.fixture
def environment() -> str:
    """Return an environment of this test alone."""
    return f"reader{uuid.uuid4().hex[:12]}"


async def deliver(url: str, *entries: Entry) -> None:
    """Deliver events and make them searchable."""
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=url, _env_file=None))
    assert await sink.deliver(list(entries)) == [DELIVERED] * len(entries)
    await sink.close()
    client = OpenSearchClient(Access(hosts=(SinkHost(url),)), 30, 1)
    assert (await client.request("POST", "/events_*/_refresh")).status == 200
    await client.close()


@pytest.fixture
async def reader(opensearch: OpenSearchAddress, environment: str) -> AsyncIterator[OpenSearchReader]:
    reader = OpenSearchReader(Access(hosts=(SinkHost(opensearch.url),)), environment)
    yield reader
    await reader.close()


def ids(documents: list[Raw]) -> list[str]:
    return [json.loads(bytes(document))["log_id"] for document in documents]


async def test_no_index_is_empty(reader: OpenSearchReader) -> None:
    assert await reader.search(Query({})) == []
    assert await reader.count(Query({})) == 0


async def test_newest_come_first_over_the_turn_of_a_month(
    opensearch: OpenSearchAddress, reader: OpenSearchReader, environment: str
) -> None:
    times = {str(day): NOON + timedelta(days=day) for day in range(12)}
    await deliver(opensearch.url, *(make_entry(environment, log_id, time) for log_id, time in times.items()))

    assert ids(await reader.search(Query({}, limit=3))) == ["11", "10", "9"]
    assert ids(await reader.search(Query({}, limit=0))) == []
    assert ids(await reader.search(Query({}, "2026-12-04T12:00:00+00:00"))) == ["11"]
    assert await reader.count(Query({}, limit=3)) == 12


async def test_environment_does_not_read_events_of_one_that_begins_like_it(
    opensearch: OpenSearchAddress, reader: OpenSearchReader, environment: str
) -> None:
    others = [make_entry(f"{environment}{more}", "other") for more in ("_eu", "_2026", "-eu", "2")]
    await deliver(opensearch.url, make_entry(environment, "own"), *others)

    assert ids(await reader.search(Query({}))) == ["own"]
    assert await reader.count(Query({})) == 1


async def test_values_are_found_exactly(
    opensearch: OpenSearchAddress, reader: OpenSearchReader, environment: str
) -> None:
    await deliver(opensearch.url, make_entry(environment, "a"), make_entry(environment, "b", page="/home/other"))

    async def count(**where: str) -> int:
        return await reader.count(Query({name.replace("__", "."): value for name, value in where.items()}))

    assert await count(page="/home") == 1
    assert await count(page="/home", event="click", user_id="user", log_id="a") == 1
    assert await count(page="/home", log_id="b") == 0
    assert await count(page="home") == 0
    assert await count(nothing="x") == 0
    assert await count(extra__unknown="field") == 2
    for name, value in {
        "text": "a b",
        "whole": "7",
        "fraction": "1.50",
        "yes": "true",
        "deep__er": "down",
        "list": "one",
    }.items():
        assert await count(**{f"param__{name}": value}) == 2, name
    assert await count(param__list="2") == 2
    assert await count(param__text="a") == 0
    assert await count(param__none="null") == 0
    assert await count(param__er="down") == 0


async def test_numbers_come_back_as_they_were_sent(
    opensearch: OpenSearchAddress, reader: OpenSearchReader, environment: str
) -> None:
    numbers = b'{"huge":1e400,"exact":1.50,"wide":12345678901234567890.123456789}'
    await deliver(opensearch.url, make_entry(environment, "a").replace(PARAM, numbers))

    (found,) = await reader.search(Query({"log_id": "a"}))

    assert numbers in bytes(found)


async def test_document_comes_back_whole(
    opensearch: OpenSearchAddress, reader: OpenSearchReader, environment: str
) -> None:
    await deliver(opensearch.url, make_entry(environment, "a"))

    (found,) = await reader.search(Query({"log_id": "a"}))
    document = json.loads(bytes(found))

    assert document["received_at"] == "2026-11-24T12:00:00Z"
    assert document["event_info"]["param"]["list"] == ["one", 2]
