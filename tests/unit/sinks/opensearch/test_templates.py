"""The template of an index with a fixed name is put before its first event, and holds up no other index."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forebay.model import DELIVERED, Entry, Outcome, Verdict, entry_index
from forebay.settings import Settings
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.opensearch.template import NAME
from forebay.sinks.opensearch.ubi_templates import UBI_TEMPLATES, VERSION

MONTH = "events_local_2026-11"


class FakeOpenSearch:
    """Keeps templates, and takes every bulk.

    Attributes:
        versions: the versions of the templates that are there, by name.
        refused: the templates that it does not take.
        asked: the names of the templates that it was asked for, and the indices of each bulk.
        bulk_status: its answer to bulks.
    """

    def __init__(self) -> None:
        self.url = ""
        self.versions: dict[str, int] = {}
        self.refused: set[str] = set()
        self.asked: list[str | list[str]] = []
        self.bulk_status = 200

    async def handle(self, request: web.Request) -> web.Response:
        body, name = await request.read(), request.path.rpartition("/")[2]
        if name == "_bulk":
            indices = [json.loads(line)["create"]["_index"] for line in body.splitlines()[::2]]
            self.asked.append(indices)
            return web.json_response({"items": [{"create": {"status": 201}}] * len(indices)}, status=self.bulk_status)
        self.asked.append(name)
        if request.method == "GET":
            found = [{"index_template": {"version": self.versions.get(name)}}]
            return web.json_response({"index_templates": found}, status=200 if name in self.versions else 404)
        if name in self.refused:
            error = {"type": "illegal_argument_exception", "reason": "another has the same priority"}
            return web.json_response({"error": error}, status=400)
        self.versions[name] = json.loads(body)["version"]
        return web.json_response({"acknowledged": True})


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake


@pytest.fixture
async def sink(fake: FakeOpenSearch) -> AsyncIterator[OpenSearchSink]:
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=fake.url, _env_file=None))
    yield sink
    await sink.close()


def make_entry(index: str) -> Entry:
    return b'{"create":{"_index":"%b","_id":"a"}}\n{}\n' % index.encode()


async def deliver(sink: OpenSearchSink, *indices: str) -> Sequence[Outcome]:
    """Deliver an event of each index as the pipeline does."""
    entries = [make_entry(index) for index in indices]
    for index in {entry_index(entry) for entry in entries}:
        sink.expect(index)
    return await sink.deliver(entries)


async def test_without_its_events_no_template_of_ubi_is_put(fake: FakeOpenSearch, sink: OpenSearchSink) -> None:
    await sink.open()
    await deliver(sink, MONTH)
    await deliver(sink, MONTH, "events_local_2026-12")
    assert fake.versions.keys() == {NAME}


@pytest.mark.parametrize("index", UBI_TEMPLATES)
async def test_a_template_is_put_before_the_first_bulk_with_its_events(
    fake: FakeOpenSearch, sink: OpenSearchSink, index: str
) -> None:
    await deliver(sink, MONTH)
    for _ in range(3):
        assert await deliver(sink, MONTH, index) == [DELIVERED] * 2
    name = UBI_TEMPLATES[index].name
    assert fake.versions.keys() == {NAME, name}
    assert fake.asked == [NAME, NAME, [MONTH], name, name, *[[MONTH, index]] * 3]


async def test_after_a_failure_it_is_looked_for_again_before_its_events_only(
    fake: FakeOpenSearch, sink: OpenSearchSink
) -> None:
    await deliver(sink, MONTH, "ubi_events")
    fake.bulk_status = 503
    await deliver(sink, MONTH)
    fake.bulk_status = 200
    fake.versions.clear()
    fake.asked.clear()
    await deliver(sink, MONTH)
    await deliver(sink, "ubi_events")
    name = UBI_TEMPLATES["ubi_events"].name
    assert fake.asked == [NAME, NAME, [MONTH], name, name, ["ubi_events"]]


@pytest.mark.parametrize("version", [VERSION, VERSION + 1])
async def test_one_that_is_as_new_stays(fake: FakeOpenSearch, sink: OpenSearchSink, version: int) -> None:
    name = UBI_TEMPLATES["ubi_events"].name
    fake.versions[name] = version
    await deliver(sink, "ubi_events")
    assert fake.asked.count(name) == 1


async def test_one_that_is_refused_holds_up_the_events_of_its_index_alone(
    fake: FakeOpenSearch, sink: OpenSearchSink
) -> None:
    fake.refused = {UBI_TEMPLATES["ubi_events"].name}
    first, waiting, last, query = await deliver(sink, MONTH, "ubi_events", MONTH, "ubi_queries")
    assert [first, last, query] == [DELIVERED] * 3
    assert (waiting.verdict, waiting.whole) == (Verdict.PAUSE, False)
    assert "another has the same priority" in waiting.reason
    assert fake.asked[-1] == [MONTH, MONTH, "ubi_queries"]

    fake.refused = set()
    assert await deliver(sink, "ubi_events") == [DELIVERED]


async def test_a_bulk_of_waiting_events_alone_is_not_sent(fake: FakeOpenSearch, sink: OpenSearchSink) -> None:
    fake.refused = {UBI_TEMPLATES["ubi_events"].name}
    outcomes = await deliver(sink, "ubi_events", "ubi_events")
    assert [(outcome.verdict, outcome.whole) for outcome in outcomes] == [(Verdict.PAUSE, False)] * 2
    assert [asked for asked in fake.asked if isinstance(asked, list)] == []


async def test_a_sink_that_fails_meanwhile_fails_for_all(fake: FakeOpenSearch, sink: OpenSearchSink) -> None:
    fake.refused = {UBI_TEMPLATES["ubi_events"].name}
    fake.bulk_status = 503
    outcomes = await deliver(sink, "ubi_events", MONTH)
    assert [(outcome.verdict, outcome.whole) for outcome in outcomes] == [(Verdict.RETRY, True)] * 2


async def test_no_template_is_put_if_none_is_wanted(fake: FakeOpenSearch) -> None:
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=fake.url, index_template=False, _env_file=None))
    try:
        assert await deliver(sink, MONTH, "ubi_events") == [DELIVERED] * 2
        assert fake.versions == {}
    finally:
        await sink.close()


async def test_an_operator_can_put_them_beforehand(fake: FakeOpenSearch, sink: OpenSearchSink) -> None:
    assert (await sink.prepare()).count("put in place") == 1
    said = (await sink.prepare(with_ubi=True)).splitlines()
    assert [line.rpartition(": ")[2] for line in said] == ["there already", "put in place", "put in place"]
    assert fake.versions.keys() == {NAME, *(template.name for template in UBI_TEMPLATES.values())}
