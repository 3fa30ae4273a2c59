"""An answer of OpenSearch becomes documents, or one clear line."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forebay.errors import SinkUnreachable
from forebay.setting_values import SinkHost
from forebay.sinks.opensearch import reader as reader_module
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.reader import OpenSearchReader
from forebay.sinks.port import Query

ReadFrom = Callable[..., OpenSearchReader]

WHOLE = {"failed": 0}


class FakeOpenSearch:
    """Gives one answer to everything and remembers the requests."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = {}
        self.requests: list[tuple[str, Any]] = []
        self.authorization: str | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.path_qs, await request.json()))
        self.authorization = request.headers.get("Authorization")
        body = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        return web.Response(status=self.status, text=body)


@pytest.fixture
def fake() -> FakeOpenSearch:
    return FakeOpenSearch()


@pytest.fixture
async def url(fake: FakeOpenSearch) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
async def read_from() -> AsyncIterator[ReadFrom]:
    """Make readers, which are closed after the test."""
    readers = []

    def read_from(*hosts: SinkHost) -> OpenSearchReader:
        readers.append(OpenSearchReader(Access(hosts=hosts), "prod"))
        return readers[-1]

    yield read_from
    for reader in readers:
        await reader.close()


@pytest.fixture
async def reader(read_from: ReadFrom, url: str) -> OpenSearchReader:
    return read_from(SinkHost(url))


async def test_search_asks_for_one_environment_by_exact_values_newest_first(
    fake: FakeOpenSearch, reader: OpenSearchReader
) -> None:
    documents = [{"log_id": "b"}, {"log_id": "a"}]
    fake.answer = {"hits": {"hits": [{"_source": document} for document in documents]}, "_shards": WHOLE}

    found = await reader.search(Query({"page": "/a", "param.k": "v", "user_id": "u"}, "2026-11-24T12:00:00Z", 7))

    assert [json.loads(bytes(document)) for document in found] == documents
    ((path, body),) = fake.requests
    assert path == "/events_prod_*,-events_prod_*_*/_search?ignore_unavailable=true&allow_no_indices=true"
    assert body == {
        "query": {
            "bool": {
                "filter": [
                    {"term": {"event_info.page": "/a"}},
                    {"term": {"event_info.param.k": "v"}},
                    {"term": {"user_id": "u"}},
                    {"range": {"received_at": {"gt": "2026-11-24T12:00:00Z"}}},
                ]
            }
        },
        "sort": [{"received_at": {"order": "desc", "unmapped_type": "date"}}],
        "size": 7,
    }


async def test_numbers_come_back_as_they_were_sent(fake: FakeOpenSearch, reader: OpenSearchReader) -> None:
    document = '{"log_id":"a","event_info":{"param":{"huge":1e400,"long":%s,"exact":1.50,"n":1,"n":2}}}' % ("7" * 5_000)
    fake.answer = f'{{"hits":{{"hits":[{{"_source":{document}}}]}},"_shards":{{"failed":0}}}}'

    assert [bytes(found).decode() for found in await reader.search(Query({}))] == [document]


async def test_count_asks_for_the_number_only(fake: FakeOpenSearch, reader: OpenSearchReader) -> None:
    fake.answer = {"count": 12, "_shards": WHOLE}

    assert await reader.count(Query({"page": "/a"}, limit=3)) == 12
    ((path, body),) = fake.requests
    assert path.startswith("/events_prod_*,-events_prod_*_*/_count?")
    assert body == {"query": {"bool": {"filter": [{"term": {"event_info.page": "/a"}}]}}}


async def test_absent_index_is_empty(fake: FakeOpenSearch, reader: OpenSearchReader) -> None:
    fake.status = 404
    fake.answer = {"error": {"type": "index_not_found_exception", "reason": "no such index"}, "status": 404}

    assert await reader.search(Query({})) == []
    assert await reader.count(Query({})) == 0


async def test_an_index_whose_shards_are_just_starting_is_waited_for(
    fake: FakeOpenSearch, reader: OpenSearchReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "STARTING_POLL_S", 0.01)
    fake.status, fake.answer = (
        503,
        {"error": {"type": "search_phase_execution_exception", "reason": "all shards failed"}},
    )
    counting = asyncio.create_task(reader.count(Query({})))
    while len(fake.requests) < 2:
        await asyncio.sleep(0.001)

    fake.status, fake.answer = 200, {"count": 1, "_shards": WHOLE}
    assert await counting == 1


async def test_shards_that_do_not_start_are_an_error(
    fake: FakeOpenSearch, reader: OpenSearchReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "STARTING_S_MAX", 0)
    fake.status, fake.answer = (
        503,
        {"error": {"type": "search_phase_execution_exception", "reason": "all shards failed"}},
    )
    with pytest.raises(SinkUnreachable, match="status 503"):
        await reader.count(Query({}))


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (404, "<html>\nnot here\n</html>", "status 404): <html> not here </html>"),
        (401, "Unauthorized", "status 401): Unauthorized"),
        (
            403,
            {"error": {"type": "security_exception", "reason": "no permissions"}},
            "security_exception: no permissions",
        ),
        (500, "x" * 10_000, "x" * 300),
        (302, "", "status 302)"),
        (200, "<html></html>", "does not have OpenSearch's form"),
        (200, {"hits": {}, "count": "many", "_shards": WHOLE}, "does not have OpenSearch's form"),
        (200, {"hits": {"hits": []}, "count": 0, "_shards": {"failed": 2}}, "could not search all"),
    ],
)
async def test_anything_else_is_one_clear_line(
    fake: FakeOpenSearch, reader: OpenSearchReader, status: int, answer: object, said: str
) -> None:
    fake.status, fake.answer = status, answer

    for ask in (reader.search, reader.count):
        with pytest.raises(SinkUnreachable) as caught:
            await ask(Query({}))
        assert said in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 500


async def test_credentials_go_to_opensearch_and_into_no_error(
    fake: FakeOpenSearch, read_from: ReadFrom, url: str
) -> None:
    fake.status, fake.answer = 500, ""

    with pytest.raises(SinkUnreachable) as caught:
        await read_from(SinkHost(url, "admin", "pässword")).search(Query({}))

    assert fake.authorization == "Basic " + base64.b64encode("admin:pässword".encode()).decode()
    assert "admin" not in str(caught.value)
    assert "pässword" not in str(caught.value)


async def test_host_that_is_down_hands_over_to_the_next(fake: FakeOpenSearch, read_from: ReadFrom, url: str) -> None:
    fake.answer = {"count": 1, "_shards": WHOLE}
    reader = read_from(SinkHost("http://127.0.0.1:1"), SinkHost(url))

    assert [await reader.count(Query({})) for _ in range(2)] == [1, 1]


async def test_no_host_at_all_is_said(read_from: ReadFrom) -> None:
    with pytest.raises(SinkUnreachable, match=r"http://127\.0\.0\.1:1: ") as caught:
        await read_from(SinkHost("http://127.0.0.1:1", "admin", "hunter2")).search(Query({}))

    assert "hunter2" not in str(caught.value)
