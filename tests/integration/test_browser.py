"""A page in a real Chromium, on another origin, sends to a real Forebay, and its events are in a real OpenSearch."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from testbed.servers.chromium import ChromiumMissingError, PageServer, open_chromium
from testbed.servers.fixtures import OpenSearchAddress, report_missing
from testbed.servers.forebay import ForebayServer
from testbed.traffic.index import Index

ARRIVAL_S = 20
TOKEN_S = 5

# The ways in which a page sends. Each returns the status that the page sees, or the error's name.
PAGE = """<!doctype html><title>A page</title><script>
let url, token;
const event = (id) => JSON.stringify({page: location.pathname, event: "click", log_id: id});
const see = async (answer) => { try { return (await answer).status } catch (error) { return error.name } };
const json = (id) => ({
    method: "POST", body: event(id),
    headers: {"Authorization": `Bearer ${token}`, "Content-Type": "application/json", "Device-UUID": "a device"},
});
const withToken = (id) => JSON.stringify({...JSON.parse(event(id)), access_token: token});
const ways = {
    fetch: (id) => see(fetch(`${url}/events`, json(id))),
    keepalive: (id) => see(fetch(`${url}/events`, {...json(id), keepalive: true})),
    plain: (id) => see(fetch(`${url}/events?access_token=${token}`, {method: "POST", body: event(id)})),
    beacon: async (id) => navigator.sendBeacon(`${url}/events`, withToken(id)),
    query: async (id) => navigator.sendBeacon(`${url}/events?access_token=${token}`, event(id)),
    form: async (id) => navigator.sendBeacon(
        `${url}/events`, new URLSearchParams({access_token: token, data: event(id)})),
};
const send = (way, ids) => Promise.all(ids.map(ways[way]));
const sendAtEnd = (idsByWay) => addEventListener("pagehide", () => {
    for (const [way, ids] of Object.entries(idsByWay)) ids.forEach(ways[way]);
});
</script>"""


@pytest.fixture
def pages() -> Iterator[PageServer]:
    with PageServer(PAGE) as server:
        yield server


@pytest.fixture
async def chromium() -> AsyncIterator[BrowserContext]:
    try:
        async with open_chromium() as context:
            yield context
            return
    except ChromiumMissingError as error:
        missing = str(error)
    report_missing(missing)


@pytest.fixture
def server(opensearch: OpenSearchAddress, pages: PageServer, tmp_path: Path) -> Iterator[ForebayServer]:
    settings = {
        "OPEN_SEARCH_DNS": opensearch.url,
        "SERVER_ENVIRONMENT": f"browser-{uuid.uuid4().hex[:8]}",
        "FOREBAY_CORS_ORIGINS": pages.origin(),
        "FOREBAY_BULK_INTERVAL_S": "0.2",
        "FOREBAY_JWT_LEEWAY_S": "0.001",
    }
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        yield server


async def open_page(chromium: BrowserContext, server: ForebayServer, origin: str) -> Page:
    page = await chromium.new_page()
    await page.goto(f"{origin}/")
    await page.evaluate("([at, jwt]) => { url = at; token = jwt }", [server.url, server.token()])
    return page


async def send(page: Page, way: str, ids: list[str]) -> Counter[Any]:
    return Counter(await page.evaluate("([way, ids]) => send(way, ids)", [way, ids]))


def ids_of(way: str, number: int) -> list[str]:
    return [f"{way}-{count}-{uuid.uuid4()}" for count in range(number)]


async def assert_stored(opensearch: OpenSearchAddress, server: ForebayServer, ids: list[str]) -> None:
    """Assert that exactly these events are in OpenSearch, each once."""
    index = Index(opensearch.url, server.settings["SERVER_ENVIRONMENT"])
    await index.wait_count(len(ids), ARRIVAL_S)
    # One too many would come a moment later.
    await asyncio.sleep(0.5)
    await index.count()
    found = [(log_id, source) async for log_id, source in index.documents()]
    assert Counter(log_id for log_id, _ in found) == Counter(ids)
    stored = json.dumps([source for _, source in found])
    assert "access_token" not in stored
    assert "eyJ" not in stored
    assert "eyJ" not in server.log


async def test_each_event_of_a_page_arrives_once_also_while_it_is_being_closed(
    chromium: BrowserContext, server: ForebayServer, pages: PageServer, opensearch: OpenSearchAddress
) -> None:
    page = await open_page(chromium, server, pages.origin())
    sent: list[str] = []
    for way, seen in (
        ("fetch", 200),
        ("keepalive", 200),
        ("plain", 200),
        ("beacon", True),
        ("query", True),
        ("form", True),
    ):
        ids = ids_of(way, 20)
        assert await send(page, way, ids) == {seen: 20}
        sent += ids
    at_end = {way: ids_of(f"{way} at the end", 10) for way in ("keepalive", "plain", "beacon", "query", "form")}
    # Without keepalive a browser gives a request up with its page.
    del at_end["plain"]
    await page.evaluate("(ids) => sendAtEnd(ids)", at_end)
    await page.close(run_before_unload=True)
    await assert_stored(opensearch, server, sent + [log_id for ids in at_end.values() for log_id in ids])


async def test_a_page_of_an_origin_that_is_not_allowed_sends_nothing(
    chromium: BrowserContext, server: ForebayServer, pages: PageServer, opensearch: OpenSearchAddress
) -> None:
    page = await open_page(chromium, server, pages.origin("localhost"))
    for way in ("fetch", "keepalive", "plain"):
        assert await send(page, way, ids_of(way, 3)) == {"TypeError": 3}
    for way in ("beacon", "query", "form"):
        # A page never learns what became of a beacon.
        assert await send(page, way, ids_of(way, 3)) == {True: 3}
    allowed = await open_page(chromium, server, pages.origin())
    last = ids_of("fetch", 1)
    assert await send(allowed, "fetch", last) == {200: 1}
    await assert_stored(opensearch, server, last)


async def test_a_page_sees_that_its_token_has_run_out_and_sends_again_with_another(
    chromium: BrowserContext, server: ForebayServer, pages: PageServer, opensearch: OpenSearchAddress
) -> None:
    page = await open_page(chromium, server, pages.origin())
    await page.evaluate("(jwt) => { token = jwt }", server.token(lifetime_s=TOKEN_S))
    ids: list[str] = []
    refused: list[str] = []
    while len(refused) < 5:
        ids += ids_of("fetch", 1)
        seen = await send(page, "fetch", ids[-1:])
        assert seen in ({200: 1}, {401: 1})
        if 401 in seen:
            refused.append(ids[-1])
        await page.wait_for_timeout(100)
    # Some were taken, and from the first refusal on all are refused: the token does not come back.
    assert refused == ids[-5:] != ids
    await page.evaluate("(jwt) => { token = jwt }", server.token())
    assert await send(page, "fetch", refused) == {200: len(refused)}
    await assert_stored(opensearch, server, ids)
