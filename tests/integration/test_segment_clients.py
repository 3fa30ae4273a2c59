"""Segment's own clients for Python and for Node, unchanged but for the host: all that they are given is found.

Every event that a client was given is rebuilt from its document, and is then the same, field by field.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from segment.analytics.client import Client as PythonClient

from forebay.intake.formats.segment_call import CALLS
from testbed.clients.segment_node import NodeMissingError, SegmentNode, Sent, install
from testbed.servers.faulty_proxy import FaultyProxy
from testbed.servers.fixtures import OpenSearchAddress, report_missing
from testbed.servers.forebay import ForebayServer
from testbed.traffic.index import Index

ARRIVAL_S = 30.0
PAUSE_S = 0.005
"""Between two calls, so that they are sent in many requests."""

QUICK = {
    "FOREBAY_BULK_INTERVAL_S": "0.2",
    "FOREBAY_RETRY_DELAY_S_MIN": "0.05",
    "FOREBAY_RETRY_DELAY_S_MAX": "0.5",
    "FOREBAY_RETRY_INTERVAL_S": "1",
}
CONTEXTS: list[dict[str, Any]] = [
    {},
    {"ip": "8.8.8.8", "locale": "de-CH", "active": True},
    {"app": {"name": "InitechGlobal", "version": "545"}, "device": {"id": "B5372DB0", "type": "ios"}},
    {
        "page": {"path": "/academy/", "title": "Größe 東京 🎉", "url": "https://s.com/academy/"},
        "userAgent": "Mozilla/5.0",
    },
    {"os": {"version": 8.1}, "device": None, "page": [], "traits": {"plan": None}, "": {"": [[]]}, "a.b": 1},
]
PROPERTIES: list[dict[str, Any]] = [
    {},
    {"revenue": 14.99, "currency": "USD", "products": [{"sku": "45790-32", "quantity": 1}, {}]},
    {"path": "/p", "title": 'a "quoted"\n\ttext \\ \u2028', "big": 2**53, "small": -1e-9, "none": None, "yes": True},
    {"nested": {"a": {"b": [1, [2, {"c": []}]]}}, "long": "x" * 9_000, "empty": "", "a.b": {"c.d": 1}},
]


class SegmentClient(Protocol):
    """One of the clients, as a test uses it."""

    def send(self, kind: str, call: Mapping[str, Any]) -> None: ...

    def end(self) -> Sent: ...


class SegmentPython(logging.Handler):
    """The client for Python."""

    def __init__(self, host: str, token: str, *, gzip: bool = False) -> None:
        super().__init__(logging.DEBUG)
        self.retries = 0
        self._events: list[dict[str, Any]] = []
        self._lost: list[str] = []
        self._client = PythonClient(
            write_key=token,
            host=host,
            gzip=gzip,
            upload_size=15,
            on_error=lambda error, events: self._lost.append(f"{len(events)}: {error}"),
        )
        self._log = logging.getLogger("segment")
        self._log.setLevel(logging.DEBUG)
        self._log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.retries += any(words in record.msg for words in ("retry", "Rate-limited (status"))

    def send(self, kind: str, call: Mapping[str, Any]) -> None:
        names = {"userId": "user_id", "anonymousId": "anonymous_id", "groupId": "group_id", "previousId": "previous_id"}
        named = {names.get(name, name): value for name, value in call.items()}
        if "timestamp" in named:
            named["timestamp"] = datetime.fromisoformat(named["timestamp"])
        is_taken, event = getattr(self._client, kind)(**named)
        assert is_taken
        self._events.append(event)

    def end(self) -> Sent:
        self._client.flush()
        return Sent(self._events, self._lost, self.retries)

    def close(self) -> None:
        self._client.join()
        self._log.removeHandler(self)
        super().close()


@pytest.fixture(scope="session")
def node_home() -> Path:
    """The packages of the client for Node."""
    try:
        return install()
    except NodeMissingError as error:
        missing = str(error)
    return report_missing(missing)


@contextmanager
def open_client(request: pytest.FixtureRequest, server: ForebayServer) -> Iterator[SegmentClient]:
    """Return the client that a test is run with."""
    token = server.token("the server's own user")
    if request.param == "node":
        with SegmentNode(request.getfixturevalue("node_home"), server.url, token, server.folder) as node:
            yield node
    else:
        with closing(SegmentPython(server.url, token, gzip=request.param == "python, gzip")) as python:
            yield python


@pytest.fixture
def proxy(opensearch: OpenSearchAddress) -> Iterator[FaultyProxy]:
    with FaultyProxy(opensearch.url) as proxy:
        yield proxy


@pytest.fixture
def settings() -> dict[str, str]:
    return {}


@pytest.fixture
def server(proxy: FaultyProxy, settings: dict[str, str], tmp_path: Path) -> Iterator[ForebayServer]:
    where = {"OPEN_SEARCH_DNS": proxy.url, "SERVER_ENVIRONMENT": f"segment-{uuid.uuid4().hex[:8]}"}
    with ForebayServer(tmp_path, {**QUICK, **where, **settings}) as server:
        server.start()
        yield server


@pytest.fixture
def client(request: pytest.FixtureRequest, server: ForebayServer) -> Iterator[SegmentClient]:
    with open_client(request, server) as client:
        yield client


each_client = pytest.mark.parametrize("client", ["python", "python, gzip", "node"], indirect=True)
both_clients = pytest.mark.parametrize("client", ["python", "node"], indirect=True)


def make_calls(number: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield so many calls, or calls without end: all kinds in turn, with all contexts and properties combined."""
    for count in itertools.count() if number is None else range(number):
        kind = list(CALLS)[count % len(CALLS)]
        call: dict[str, Any] = {"userId": f"user {count}", "context": CONTEXTS[count % len(CONTEXTS)]}
        if count % 7 == 0:
            call["timestamp"] = (datetime.now(UTC) - timedelta(seconds=count)).isoformat(timespec="milliseconds")
        if count % 3 == 0:
            call["integrations"] = {"All": False, "Mixpanel": True}
        if kind == "alias":
            call["previousId"] = f"before {count}"
        else:
            call[CALLS[kind]] = PROPERTIES[count % len(PROPERTIES)]
        if kind != "alias" and count % 4 == 0:
            del call["userId"]
            call["anonymousId"] = f"anonymous {count}"
        if kind == "track":
            call["event"] = f"Song Played {count % 11}"
        if kind == "group":
            call["groupId"] = f"group {count}"
        if kind in {"page", "screen"} and count % 5:
            call |= {"name": f"Page {count}", "category": "Docs"}
        yield kind, call


def send(client: SegmentClient, calls: Iterable[tuple[str, dict[str, Any]]], pause_s: float = 0) -> int:
    """Give a client calls, and return how many."""
    number = 0
    for kind, call in calls:
        client.send(kind, call)
        number += 1
        time.sleep(pause_s)
    return number


def rebuild(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call that became a document, without the time of sending, which is not the event's."""
    info = document["event_info"]
    call = dict(info["extra"])
    received_at, sent_at = datetime.fromisoformat(document["received_at"]), datetime.fromisoformat(call.pop("sentAt"))
    happened_at = datetime.fromisoformat(document["@timestamp"]) - (received_at - sent_at)
    call |= {"messageId": document["log_id"], "timestamp": happened_at}
    if "source" in document:
        assert document["source"] == "the server's own user"
        call["userId"] = document["user_id"]
    if call["type"] == "track":
        call["event"] = info["event"]
    else:
        assert info["event"] == call["type"]
    places = {"name": "label", "category": "section", CALLS[call["type"]]: "param"}
    call |= {name: info[place] for name, place in places.items() if place in info}
    return call


def as_given(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of a client with its time as one that can be compared."""
    return {**event, "timestamp": datetime.fromisoformat(event["timestamp"])}


async def assert_found(opensearch: OpenSearchAddress, server: ForebayServer, events: list[dict[str, Any]]) -> None:
    """Assert that exactly these events are in OpenSearch, each once and with every field."""
    index = Index(opensearch.url, server.settings["SERVER_ENVIRONMENT"])
    await index.wait_count(len(events), ARRIVAL_S)
    # One too many would come a moment later.
    await asyncio.sleep(0.5)
    found = [(log_id, document) async for log_id, document in index.documents()]
    assert Counter(log_id for log_id, _ in found) == Counter(event["messageId"] for event in events)
    given = {event["messageId"]: as_given(event) for event in events}
    for log_id, document in found:
        assert rebuild(document) == given[log_id]
        context = given[log_id]["context"]
        device = context.get("device") or {}
        assert document.get("device_uuid") == device.get("id")
        assert document.get("app_version") == context.get("app", {}).get("version")
    token = server.token("the server's own user").partition(".")[0]
    assert token not in str(found)
    assert token not in server.log
    await index.remove()


@each_client
async def test_all_that_a_client_is_given_is_found_field_by_field(
    client: SegmentClient, server: ForebayServer, opensearch: OpenSearchAddress
) -> None:
    await asyncio.to_thread(send, client, make_calls(420))
    sent = await asyncio.to_thread(client.end)
    assert (len(sent.events), sent.lost, sent.retries) == (420, [], 0)
    await assert_found(opensearch, server, sent.events)


@both_clients
async def test_with_opensearch_away_and_the_server_killed_in_the_middle_each_event_is_there_once(
    client: SegmentClient, server: ForebayServer, proxy: FaultyProxy, opensearch: OpenSearchAddress
) -> None:
    is_over = threading.Event()
    calls = itertools.takewhile(lambda _: not is_over.is_set(), make_calls())
    sending = asyncio.create_task(asyncio.to_thread(send, client, calls, PAUSE_S))
    for _ in range(2):
        await asyncio.sleep(0.7)
        await asyncio.to_thread(proxy.refuse)
        await asyncio.sleep(0.7)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(0.7)
        await asyncio.to_thread(proxy.accept)
    is_over.set()
    number = await sending
    sent = await asyncio.to_thread(client.end)
    assert (len(sent.events), sent.lost) == (number, [])
    assert sent.retries > 0, "no request was interrupted"
    await assert_found(opensearch, server, sent.events)


@both_clients
@pytest.mark.parametrize("settings", [{"FOREBAY_TOKEN_RATE_PER_S": "100", "FOREBAY_RATE_BURST_S": "1"}])
async def test_a_client_that_sends_too_fast_is_late_and_loses_nothing(
    client: SegmentClient, server: ForebayServer, opensearch: OpenSearchAddress
) -> None:
    await asyncio.to_thread(send, client, make_calls(300))
    sent = await asyncio.to_thread(client.end)
    assert (len(sent.events), sent.lost) == (300, [])
    assert sent.retries > 0, "the limit was not reached"
    await assert_found(opensearch, server, sent.events)


@pytest.mark.parametrize("client", ["python"], indirect=True)
async def test_an_event_that_the_client_cannot_write_as_json_costs_no_other(
    client: SegmentClient, server: ForebayServer, opensearch: OpenSearchAddress
) -> None:
    # Python writes NaN, which is no JSON.
    bad = ("track", {"userId": "u", "event": "e", "properties": {"ratio": float("nan")}})
    await asyncio.to_thread(send, client, [*make_calls(7), bad, *make_calls(7)])
    sent = await asyncio.to_thread(client.end)
    assert (len(sent.events), sent.lost) == (15, [])
    await assert_found(opensearch, server, [event for event in sent.events if event.get("event") != "e"])
