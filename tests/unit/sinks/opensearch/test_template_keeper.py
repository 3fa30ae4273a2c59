"""The template is looked for before a bulk that may find it gone, and not before any other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forebay.document import Document, EventInfo, encode_entry
from forebay.model import DELIVERED, Address, Entry, Outcome, entry_index
from forebay.settings import Settings
from forebay.sinks.opensearch import template_keeper
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.opensearch.template import PATH, TEMPLATE
from forebay.sinks.opensearch.template_keeper import INDICES_MAX, VALID_S


class FakeOpenSearch:
    """Has a template or not, and makes indices.

    Attributes:
        asked: the requests to it, in order: GET and PUT for the template, POST for a bulk.
        guessed: the indices that it made without the template.
        bulk_status: its answer to bulks.
        bulks_go_on, answers_go_on: until they are set, bulks and questions for the template wait for their answers.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.guessed: list[str] = []
        self.bulk_status = 200
        self.bulks_go_on = asyncio.Event()
        self.answers_go_on = asyncio.Event()
        self.resume()
        self.lose_data()

    def resume(self) -> None:
        self.bulks_go_on.set()
        self.answers_go_on.set()

    def lose_data(self) -> None:
        self.has_template = False
        self.indices: set[str] = set()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append(request.method)
        if request.path == "/_bulk":
            return await self._take_bulk(body)
        assert request.path == PATH
        if request.method == "GET":
            has_template = self.has_template
            await self.answers_go_on.wait()
            found: dict[str, Any] = {"index_templates": [{"name": "x", "index_template": TEMPLATE}]}
            return web.json_response(found) if has_template else web.json_response({}, status=404)
        self.has_template = True
        return web.json_response({"acknowledged": True})

    async def _take_bulk(self, body: bytes) -> web.Response:
        status, go_on = self.bulk_status, self.bulks_go_on
        await go_on.wait()
        if status != 200:
            return web.Response(status=status)
        names = [json.loads(line)["create"]["_index"] for line in body.splitlines()[::2]]
        self.guessed += [] if self.has_template else set(names) - self.indices
        self.indices |= set(names)
        return web.json_response({"items": [{"create": {"status": 201}}] * len(names)})


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(template_keeper, "monotonic", clock)
    return clock


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake
        fake.resume()


@pytest.fixture
async def sink(fake: FakeOpenSearch) -> AsyncIterator[OpenSearchSink]:
    async with sink_at(fake.url) as sink:
        yield sink


async def deliver(sink: OpenSearchSink, entries: list[Entry]) -> Sequence[Outcome]:
    """Deliver as the pipeline does."""
    for index in {entry_index(entry) for entry in entries}:
        sink.expect(index)
    return await sink.deliver(entries)


@asynccontextmanager
async def sink_at(url: str, **settings: Any) -> AsyncIterator[OpenSearchSink]:
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=url, _env_file=None, **settings))
    try:
        yield sink
    finally:
        await sink.close()


def make_entry(month: str = "2026-11") -> Entry:
    now = datetime.now(UTC)
    info = EventInfo(page="/home", event="click")
    return encode_entry(Address(f"events_local_{month}", "a"), Document(now, now, "a", "user", info))


async def until_asked(fake: FakeOpenSearch, *methods: str) -> None:
    async with asyncio.timeout(10):
        while fake.asked != list(methods):
            await asyncio.sleep(0.001)


async def test_busy_traffic_asks_once(fake: FakeOpenSearch, sink: OpenSearchSink, clock: Clock) -> None:
    for _ in range(20):
        assert await deliver(sink, [make_entry()] * 3) == [DELIVERED] * 3
        clock.now_s += VALID_S * 0.9

    assert fake.asked == ["GET", "PUT", *["POST"] * 20]


async def test_after_a_quiet_time_the_template_is_there_before_the_bulk(
    fake: FakeOpenSearch, sink: OpenSearchSink, clock: Clock
) -> None:
    await deliver(sink, [make_entry()])
    clock.now_s += VALID_S
    fake.lose_data()

    assert await deliver(sink, [make_entry()]) == [DELIVERED]
    assert fake.asked == ["GET", "PUT", "POST"] * 2
    assert fake.guessed == []


async def test_after_a_quiet_time_with_the_template_in_place_it_stays_as_it_is(
    fake: FakeOpenSearch, sink: OpenSearchSink, clock: Clock
) -> None:
    await deliver(sink, [make_entry()])
    clock.now_s += VALID_S

    await deliver(sink, [make_entry()])
    assert fake.asked == ["GET", "PUT", "POST", "GET", "POST"]


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503])
async def test_after_a_bulk_that_is_refused_as_a_whole_the_template_is_there_before_the_next(
    fake: FakeOpenSearch, sink: OpenSearchSink, status: int
) -> None:
    await deliver(sink, [make_entry()])
    fake.bulk_status = status
    (refused,) = await deliver(sink, [make_entry()])
    assert refused.whole
    fake.bulk_status = 200
    fake.lose_data()

    assert await deliver(sink, [make_entry()]) == [DELIVERED]
    assert fake.asked == ["GET", "PUT", "POST", "POST", "GET", "PUT", "POST"]
    assert fake.guessed == []


async def test_after_a_bulk_without_an_answer_the_template_is_there_before_the_next(
    fake: FakeOpenSearch,
) -> None:
    async with sink_at(fake.url, bulk_timeout_s=0.3) as sink:
        await deliver(sink, [make_entry()])
        fake.bulks_go_on.clear()
        fake.bulk_status = 503  # once nobody waits for it any more
        (lost,) = await deliver(sink, [make_entry()])
        assert "no answer in time" in lost.reason
        fake.bulk_status = 200
        fake.resume()
        fake.lose_data()

        assert await deliver(sink, [make_entry()]) == [DELIVERED]
    assert fake.guessed == []


async def test_a_bulk_in_flight_that_is_answered_after_a_failure_brings_no_trust_back(
    fake: FakeOpenSearch, sink: OpenSearchSink
) -> None:
    await deliver(sink, [make_entry()])
    late_goes_on = fake.bulks_go_on
    late_goes_on.clear()
    late = asyncio.create_task(deliver(sink, [make_entry()]))
    await until_asked(fake, "GET", "PUT", "POST", "POST")
    fake.bulks_go_on = asyncio.Event()
    fake.bulks_go_on.set()
    fake.bulk_status = 503
    await deliver(sink, [make_entry()])
    fake.bulk_status = 200
    late_goes_on.set()
    assert await late == [DELIVERED]

    fake.lose_data()
    await deliver(sink, [make_entry()])
    assert fake.guessed == []


async def test_what_was_found_while_a_bulk_failed_is_looked_for_again(
    fake: FakeOpenSearch, sink: OpenSearchSink, clock: Clock
) -> None:
    await deliver(sink, [make_entry()])
    fake.bulks_go_on.clear()
    fake.bulk_status = 503
    refused = asyncio.create_task(deliver(sink, [make_entry()]))
    await until_asked(fake, "GET", "PUT", "POST", "POST")
    clock.now_s += VALID_S
    fake.answers_go_on.clear()
    fake.bulk_status = 200
    waiting = asyncio.create_task(deliver(sink, [make_entry()]))
    await until_asked(fake, "GET", "PUT", "POST", "POST", "GET")
    # The question has its answer already, that the template is there, and the failure is known before it.
    fake.lose_data()
    fake.bulks_go_on.set()
    await refused
    fake.answers_go_on.set()

    assert await waiting == [DELIVERED]
    assert fake.asked[4:] == ["GET", "GET", "PUT", "POST"]
    assert fake.guessed == []


async def test_the_first_bulk_of_a_month_looks_for_a_template_that_somebody_deleted(
    fake: FakeOpenSearch, sink: OpenSearchSink
) -> None:
    await deliver(sink, [make_entry("2026-11")])
    fake.has_template = False

    assert await deliver(sink, [make_entry("2026-11"), make_entry("2026-12")]) == [DELIVERED] * 2
    assert fake.asked == ["GET", "PUT", "POST"] * 2
    assert fake.guessed == []
    await deliver(sink, [make_entry("2026-12"), make_entry("2026-11")])
    assert fake.asked[6:] == ["POST"]


async def test_indices_are_remembered_up_to_a_limit(fake: FakeOpenSearch, sink: OpenSearchSink) -> None:
    months = [make_entry(f"{2000 + number}-01") for number in range(INDICES_MAX + 1)]
    for _ in range(2):
        await deliver(sink, months[:INDICES_MAX])
    assert fake.asked == ["GET", "PUT", "POST", "POST"]

    # One more than that: each bulk of them asks, and none goes without.
    for _ in range(2):
        await deliver(sink, months)
    assert fake.asked[4:] == ["GET", "POST"] * 2


async def test_bulks_that_wait_after_a_failure_share_one_look(fake: FakeOpenSearch, sink: OpenSearchSink) -> None:
    await deliver(sink, [make_entry()])
    fake.bulk_status = 503
    await deliver(sink, [make_entry()])
    fake.bulk_status = 200

    await asyncio.gather(*(deliver(sink, [make_entry()]) for _ in range(8)))
    assert fake.asked[4:] == ["GET", *["POST"] * 8]


async def test_without_its_setting_the_template_is_never_asked_for(fake: FakeOpenSearch, clock: Clock) -> None:
    async with sink_at(fake.url, index_template=False) as sink:
        await sink.open()
        for month in ("2026-11", "2026-12"):
            await deliver(sink, [make_entry(month)])
            clock.now_s += VALID_S * 2
        fake.bulk_status = 503
        await deliver(sink, [make_entry()])
        await deliver(sink, [make_entry()])
    assert fake.asked == ["POST"] * 4
