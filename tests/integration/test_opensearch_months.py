"""Months are listed from and deleted in a real OpenSearch: exactly those of one environment."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from forebay.errors import SinkUnreachable
from forebay.setting_values import SinkHost
from forebay.sinks.months import choose_old
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.indices import OpenSearchMonths
from testbed.servers.fixtures import OpenSearchAddress

MONTHS = ("2024-11", "2024-12", "2025-01")


@pytest.fixture
def environment() -> str:
    """Return an environment of this test alone."""
    return f"months{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def client(opensearch: OpenSearchAddress) -> AsyncIterator[OpenSearchClient]:
    client = OpenSearchClient(Access(hosts=(SinkHost(opensearch.url),)), 30, 1)
    yield client
    await client.close()


@pytest.fixture
async def keeper(opensearch: OpenSearchAddress, environment: str) -> AsyncIterator[OpenSearchMonths]:
    keeper = OpenSearchMonths(Access(hosts=(SinkHost(opensearch.url),)), environment)
    yield keeper
    await keeper.close()


async def put_documents(client: OpenSearchClient, index: str, documents: int = 1) -> None:
    lines = [line for number in range(documents) for line in ({"create": {"_id": str(number)}}, {"number": number})]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    answer = await client.request("POST", f"/{index}/_bulk?refresh=true", body, "application/x-ndjson")
    assert (answer.status, b'"errors":false' in answer.body) == (200, True)


async def is_there(client: OpenSearchClient, index: str) -> bool:
    return (await client.request("HEAD", f"/{index}")).status == 200


async def test_months_of_the_environment_are_listed_with_their_size_and_deleted(
    client: OpenSearchClient, keeper: OpenSearchMonths, environment: str
) -> None:
    assert await keeper.list_months() == []
    others = [f"events_{environment}_eu_2024-11", f"events_{environment}_2024-11-old", f"events_{environment}x_2024-11"]
    for index in others:
        await put_documents(client, index)
    for documents, month in enumerate(MONTHS, 1):
        await put_documents(client, f"events_{environment}_{month}", documents)

    months = await keeper.list_months()
    now = datetime(2025, 2, 1, tzinfo=UTC)
    for old in choose_old(months, environment, now, now):
        await keeper.delete_month(old.name)

    assert [(stored.name, stored.documents) for stored in months] == [
        (f"events_{environment}_{month}", documents) for documents, month in enumerate(MONTHS, 1)
    ]
    assert all(stored.stored_bytes > 0 for stored in months)
    assert [stored.name for stored in await keeper.list_months()] == [f"events_{environment}_2025-01"]
    assert [await is_there(client, index) for index in others] == [True] * len(others)


async def test_closed_month_is_listed_and_one_that_is_gone_counts_as_deleted(
    client: OpenSearchClient, keeper: OpenSearchMonths, environment: str
) -> None:
    index = f"events_{environment}_2024-11"
    await put_documents(client, index)
    assert (await client.request("POST", f"/{index}/_close")).status == 200

    assert [stored.name for stored in await keeper.list_months()] == [index]
    await keeper.delete_month(index)
    await keeper.delete_month(index)
    assert await keeper.list_months() == []


async def test_alias_with_the_name_of_a_month_is_not_taken_for_one(
    client: OpenSearchClient, keeper: OpenSearchMonths, environment: str
) -> None:
    behind, alias = f"kept_{environment}", f"events_{environment}_2024-11"
    await put_documents(client, behind)
    assert (await client.request("PUT", f"/{behind}/_alias/{alias}")).status == 200

    assert await keeper.list_months() == []
    with pytest.raises(SinkUnreachable, match=r"does not delete .* \(status 400\)"):
        await keeper.delete_month(alias)
    assert await is_there(client, behind)


async def test_index_of_another_environment_is_never_deleted(keeper: OpenSearchMonths) -> None:
    with pytest.raises(ValueError, match="is no month of"):
        await keeper.delete_month("events_*")
