"""The split of bulks, the outcomes of the parts, and the check of the template that bulks share."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forebay.document import Document, EventInfo, encode_entry
from forebay.model import DELIVERED, Address, Entry, Outcome, Verdict, entry_address, entry_document
from forebay.settings import Settings
from forebay.sinks.opensearch.refusals import UNEXPECTED_ANSWER
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.sifting import Sifting

HANG_UP = -1
TALKATIVE = -2


class FakeOpenSearch:
    """Answers bulks as `answer` says, by the `_id`s in them: a status, HANG_UP, or TALKATIVE for long reasons."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: Callable[[list[str]], int] = lambda _: 200
        self.bulks: list[list[str]] = []
        self.queries: list[str] = []
        self.bodies: list[bytes] = []
        self.reason_bytes = 5 * 1024 * 1024
        self.template_requests = 0
        self.template_body: Any = {"acknowledged": True}
        self.template_status = 200
        self.template_waits = asyncio.Event()
        self.template_waits.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/_bulk":
            self.template_requests += 1
            await self.template_waits.wait()
            return web.json_response(self.template_body, status=self.template_status)
        body = await request.read()
        self.bodies.append(body)
        self.queries.append(request.query_string)
        ids = [json.loads(line)["create"].get("_id", "") for line in body.splitlines()[::2]]
        self.bulks.append(ids)
        status = self.answer(ids)
        if status == HANG_UP:
            assert request.transport is not None
            request.transport.abort()
        if status == 400:
            error = {"error": {"type": "parse_exception", "reason": "not to be read"}, "status": 400}
            return web.json_response(error, status=400)
        if status == TALKATIVE:
            error = {"type": "mapper_parsing_exception", "reason": "x" * self.reason_bytes}
            return web.json_response({"items": [{"create": {"status": 400, "error": error}} for _ in ids]})
        items = [{"create": {"status": 201}} for _ in ids]
        return web.json_response({"errors": False, "items": items}, status=status)


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake


@asynccontextmanager
async def sink_at(url: str, **settings: Any) -> AsyncIterator[OpenSearchSink]:
    sink = OpenSearchSink(Settings(OPEN_SEARCH_DNS=url, _env_file=None, **{"index_template": False, **settings}))
    try:
        yield sink
    finally:
        await sink.close()


def make_entry(log_id: str) -> Entry:
    now = datetime.now(UTC)
    info = EventInfo(page="/home", event="click")
    return encode_entry(Address("events_local_2026-11", log_id), Document(now, now, log_id, "user", info))


ENTRIES = [make_entry(str(number)) for number in range(8)]


async def sift(sink: OpenSearchSink, entries: list[Entry]) -> Sequence[Outcome]:
    return await Sifting(sink, lambda _: False).deliver(1, entries, 0)


@pytest.mark.parametrize("status", [400, 413])
async def test_the_one_at_fault_is_found_and_all_others_are_delivered(fake: FakeOpenSearch, status: int) -> None:
    fake.answer = lambda ids: status if "5" in ids else 200
    async with sink_at(fake.url) as sink:
        outcomes = await sift(sink, ENTRIES)
    assert (outcomes[5].verdict, outcomes[5].status) == (Verdict.REFUSED, status)
    assert not outcomes[5].whole
    assert [*outcomes[:5], *outcomes[6:]] == [DELIVERED] * 7
    # No event was sent again after it had been delivered.
    delivered = [log_id for ids in fake.bulks if "5" not in ids for log_id in ids]
    assert sorted(delivered) == sorted(set(delivered))


async def test_events_with_long_reasons_are_settled_a_few_at_a_time(fake: FakeOpenSearch) -> None:
    fake.answer = lambda _: TALKATIVE
    async with sink_at(fake.url) as sink:
        outcomes = await sift(sink, ENTRIES)
    assert {(outcome.verdict, len(outcome.reason)) for outcome in outcomes} == {(Verdict.REFUSED, 8 * 1024 - 2)}
    assert [len(ids) for ids in fake.bulks] == [8, 4, 2, 2, 4, 2, 2]


async def test_an_answer_that_is_too_large_for_one_event_is_tried_again_later(fake: FakeOpenSearch) -> None:
    fake.reason_bytes = 17 * 1024 * 1024
    fake.answer = lambda _: TALKATIVE
    async with sink_at(fake.url) as sink:
        outcomes = await sift(sink, ENTRIES[:4])
    assert {(outcome.verdict, outcome.error_type, outcome.whole) for outcome in outcomes} == {
        (Verdict.RETRY, "answer_too_large", True)
    }
    assert [len(ids) for ids in fake.bulks] == [4, 2, 1]


async def test_what_one_half_delivered_is_kept_when_the_connection_of_the_other_breaks(fake: FakeOpenSearch) -> None:
    def answer(ids: list[str]) -> int:
        return 413 if len(ids) > 4 else HANG_UP if "4" in ids else 200

    fake.answer = answer
    async with sink_at(fake.url) as sink:
        outcomes = await sift(sink, ENTRIES)
    assert outcomes[:4] == [DELIVERED] * 4
    assert {(outcome.verdict, outcome.error_type, outcome.whole) for outcome in outcomes[4:]} == {
        (Verdict.RETRY, "unreachable", True)
    }


@pytest.mark.parametrize("failure", [HANG_UP, 429, 503, 401])
async def test_the_rest_of_a_split_bulk_is_not_sent_to_a_sink_that_has_gone_away(
    fake: FakeOpenSearch, failure: int
) -> None:
    fake.answer = lambda ids: 413 if len(ids) > 1 else failure
    async with sink_at(fake.url) as sink:
        outcomes = await sift(sink, ENTRIES)
    assert [len(ids) for ids in fake.bulks] == [8, 4, 2, 1]
    assert len(outcomes) == 8
    assert all(outcome.whole and not outcome.settled for outcome in outcomes)


async def test_an_answer_that_nobody_expects_to_one_half_leaves_the_other_its_chance(fake: FakeOpenSearch) -> None:
    fake.answer = lambda ids: 413 if len(ids) > 4 else 302 if "1" in ids else 200
    async with sink_at(fake.url) as sink:
        outcomes = await sift(sink, ENTRIES)
    assert {outcome.error_type for outcome in outcomes[:4]} == {UNEXPECTED_ANSWER}
    assert outcomes[4:] == [DELIVERED] * 4


async def test_without_ids_the_rest_of_the_entry_stays_as_it_is(fake: FakeOpenSearch) -> None:
    async with sink_at(fake.url, open_search_auto_id=True) as sink:
        assert await sink.deliver(ENTRIES) == [DELIVERED] * 8
    lines = fake.bodies[0].split(b"\n")
    assert [json.loads(line) for line in lines[:-1:2]] == [{"create": {"_index": "events_local_2026-11"}}] * 8
    assert lines[1::2] == [entry_document(entry) for entry in ENTRIES]
    assert entry_address(ENTRIES[3]).log_id == "3"


async def test_opensearch_gives_up_on_a_shard_twice_before_we_give_up_on_opensearch(fake: FakeOpenSearch) -> None:
    async with sink_at(fake.url, bulk_timeout_s=30) as sink:
        await sink.deliver(ENTRIES)
    assert "&timeout=12000ms" in fake.queries[0]


# -- the template


async def test_bulks_that_wait_for_the_template_share_one_attempt(fake: FakeOpenSearch) -> None:
    fake.template_waits.clear()
    fake.template_status = 503
    async with sink_at(fake.url, index_template=True) as sink:
        bulks = [asyncio.create_task(sink.deliver([entry])) for entry in ENTRIES]
        while not fake.template_requests:
            await asyncio.sleep(0.001)
        fake.template_waits.set()
        outcomes = [outcome for bulk in bulks for outcome in await bulk]
        # One question and one attempt, whatever the number of bulks.
        assert fake.template_requests == 2
        assert {(outcome.verdict, outcome.error_type, outcome.whole) for outcome in outcomes} == {
            (Verdict.RETRY, "http_503", True)
        }
        assert fake.bulks == []
        fake.template_status = 200
        assert await sink.deliver(ENTRIES) == [DELIVERED] * 8
        assert await sink.deliver(ENTRIES) == [DELIVERED] * 8
    assert fake.template_requests == 4


async def test_ten_bulks_wait_for_a_host_that_does_not_answer_as_long_as_one(fake: FakeOpenSearch) -> None:
    fake.template_waits.clear()
    async with sink_at(fake.url, index_template=True, bulk_timeout_s=2) as sink:
        outcomes = await asyncio.gather(*(sink.deliver([entry]) for entry in ENTRIES))
        assert {outcome.error_type for (outcome,) in outcomes} == {"unreachable"}
        assert fake.template_requests == 1
    fake.template_waits.set()


async def test_a_bulk_that_is_cancelled_leaves_the_attempt_to_the_others(fake: FakeOpenSearch) -> None:
    fake.template_waits.clear()
    async with sink_at(fake.url, index_template=True) as sink:
        first = asyncio.create_task(sink.deliver(ENTRIES[:1]))
        second = asyncio.create_task(sink.deliver(ENTRIES[1:]))
        while not fake.template_requests:
            await asyncio.sleep(0.001)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        fake.template_waits.set()
        assert await second == [DELIVERED] * 7


async def test_closing_ends_an_attempt_that_nobody_waits_for(fake: FakeOpenSearch) -> None:
    fake.template_waits.clear()
    async with sink_at(fake.url, index_template=True) as sink:
        waiting = asyncio.create_task(sink.deliver(ENTRIES))
        while not fake.template_requests:
            await asyncio.sleep(0.001)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    fake.template_waits.set()


@pytest.mark.parametrize(
    ("status", "body", "verdict", "error_type"),
    [
        (200, {"welcome": True}, Verdict.RETRY, UNEXPECTED_ANSWER),
        (200, {"acknowledged": False}, Verdict.RETRY, UNEXPECTED_ANSWER),
        (301, {}, Verdict.RETRY, UNEXPECTED_ANSWER),
        (400, {}, Verdict.RETRY, UNEXPECTED_ANSWER),
        (429, {}, Verdict.RETRY, "http_429"),
        (503, {}, Verdict.RETRY, "http_503"),
        (400, {"error": {"type": "mapper_parsing_exception", "reason": "no flat_object"}}, Verdict.PAUSE, ""),
        (401, {}, Verdict.PAUSE, ""),
        (403, {"error": {"type": "security_exception", "reason": "no permissions"}}, Verdict.PAUSE, ""),
        (404, {}, Verdict.PAUSE, ""),
    ],
)
async def test_without_the_template_no_bulk_goes(
    fake: FakeOpenSearch, status: int, body: Any, verdict: Verdict, error_type: str
) -> None:
    fake.template_status, fake.template_body = status, body
    async with sink_at(fake.url, index_template=True) as sink:
        outcomes = await sink.deliver(ENTRIES)
        # At the start it is no error.
        await sink.open()
    assert fake.bulks == []
    assert {outcome.verdict for outcome in outcomes} == {verdict}
    assert {outcome.error_type for outcome in outcomes} == {error_type or "template_refused"}
    assert {outcome.is_unexpected for outcome in outcomes} == {error_type == UNEXPECTED_ANSWER}
    assert {outcome.is_busy for outcome in outcomes} == {status == 429}
    assert all(outcome.whole and bool(outcome.advice) is (verdict is Verdict.PAUSE) for outcome in outcomes)
