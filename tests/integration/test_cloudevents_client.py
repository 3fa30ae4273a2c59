"""CloudEvents' own Python package sends to a real server: in each mode, and while its servers fail."""

import asyncio
import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from testbed.servers.faulty_proxy import FaultyProxy
from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer
from testbed.servers.ports import HOST
from testbed.traffic.index import Index

QUICK = {
    "FOREBAY_BULK_INTERVAL_S": "0.2",
    "FOREBAY_RETRY_DELAY_S_MIN": "0.05",
    "FOREBAY_RETRY_DELAY_S_MAX": "1",
    "FOREBAY_RETRY_INTERVAL_S": "2",
}
BEGIN = datetime(2026, 3, 15, 9, 30, tzinfo=UTC)
EVENTS = 600
BATCH = 5
RETRY_S = 0.05
TRIES_MAX = 2_000
PATIENCE_S = 90.0

Mode = str
MODES: tuple[Mode, ...] = ("binary", "structured", "batched")

# Types of data, each as the package is given it, and as the document has it.
JSON = {"name": "é 日本", "list": [1, 2.5, None, {"a": True}]}
KINDS: list[tuple[dict[str, str], Any, dict[str, Any], dict[str, str]]] = [
    ({"datacontenttype": "application/json"}, JSON, {"param": JSON}, {}),
    ({"datacontenttype": "application/vnd.shop+json"}, JSON, {"param": JSON}, {}),
    ({}, JSON, {"param": JSON}, {}),
    ({"datacontenttype": "text/plain"}, "Hello, 🌎!", {"param": {"value": "Hello, 🌎!"}}, {}),
    ({"datacontenttype": "application/xml"}, "<a>é</a>", {"param": {"value": "<a>é</a>"}}, {}),
    ({"datacontenttype": "image/png"}, b"\x89PNG\xff\x00", {}, {"data_base64": "iVBOR/8A"}),
    ({"datacontenttype": "application/json"}, None, {}, {}),
]


def make_event(number: int) -> tuple[CloudEvent, dict[str, Any]]:
    """Return an event, and the document that it becomes, but for the time of receipt and what each mode adds."""
    named, data, info, kept = KINDS[number % len(KINDS)]
    source, log_id = f"/shop/{number % 3}", str(number // 3) if number % 2 else str(uuid.UUID(int=number, version=4))
    happened_at = BEGIN + timedelta(milliseconds=number)
    subject = {"subject": f"order é {number}"} if number % 5 else {}
    user = {"authtype": "app_user", "authid": f"user {number}"} if number % 4 == 0 else {}
    extensions = {"region": "eu-west-1", "note": f'"{number}" 100% 日本 '}
    attributes = {"id": log_id, "source": source, "type": "com.example.order", "time": happened_at}
    event = CloudEvent(attributes | subject | user | named | extensions, data)
    document: dict[str, Any] = {
        "log_id": log_id,
        "@timestamp": happened_at.isoformat().replace("+00:00", "Z"),
        "user_id": user.get("authid", "tester"),
        "event_info": {
            "page": subject.get("subject", source),
            "event": "com.example.order",
            "extra": {"specversion": "1.0", "source": source, **named, **extensions, **kept},
            **info,
        },
    }
    if user:
        document["source"] = "tester"
        document["event_info"]["extra"]["authtype"] = "app_user"
    return event, document


def write(mode: Mode, events: list[CloudEvent]) -> HTTPMessage:
    """Return the request that the package makes of events; it makes no batch, whose form is that of its events."""
    if mode == "batched":
        body = b"[%b]" % b",".join(map(JSONFormat().write, events))
        return HTTPMessage({"content-type": "application/cloudevents-batch+json"}, body)
    (event,) = events
    typed: BaseCloudEvent = event
    return to_binary_event(typed) if mode == "binary" else to_structured_event(typed)


class Sender:
    """Sends each request until it is answered with 200, unchanged.

    Attributes:
        sent: the number of requests that were taken.
        repeated: the number of tries that had another end.
    """

    def __init__(self, server: ForebayServer) -> None:
        self.server = server
        self._token = server.token()
        self.sent = 0
        self.repeated = 0

    def send(self, messages: Iterable[HTTPMessage]) -> None:
        for message in messages:
            self._insist(message)
            self.sent += 1

    def _insist(self, message: HTTPMessage) -> None:
        for _ in range(TRIES_MAX):
            try:
                status, answer = self._post(message)
            except (OSError, http.client.HTTPException):
                status, answer = 0, b""
            if status == 200:
                assert json.loads(answer).get("rejected", 0) == 0, answer
                return
            assert status in (0, 503), answer
            self.repeated += 1
            time.sleep(RETRY_S)
        raise AssertionError(f"not taken in {TRIES_MAX} tries")

    def _post(self, message: HTTPMessage) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self.server.port, timeout=30)
        try:
            headers: Mapping[str, str] = {"Authorization": f"Bearer {self._token}", **message.headers}
            connection.request("POST", "/events", message.body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def in_requests(mode: Mode, events: list[CloudEvent]) -> list[HTTPMessage]:
    size = BATCH if mode == "batched" else 1
    return [write(mode, events[start : start + size]) for start in range(0, len(events), size)]


def send_and_interfere(sender: Sender, messages: list[HTTPMessage], proxy: FaultyProxy) -> None:
    """Send all messages; on the way OpenSearch goes away, the server is killed, and both come back."""
    server = sender.server
    sending = threading.Thread(target=sender.send, args=[messages])
    sending.start()
    for part, interfere in enumerate([proxy.refuse, server.kill, server.start, proxy.accept], 1):
        while sender.sent < len(messages) * part // 6 and server.is_running and sending.is_alive():
            time.sleep(0.005)
        interfere()
    sending.join()
    assert sender.sent == len(messages)


async def assert_documents(index: Index, expected: list[dict[str, Any]]) -> None:
    """Check that OpenSearch holds these documents, field by field, each once and no other."""
    await index.wait_count(len(expected), PATIENCE_S)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    async for document_id, document in index.documents():
        del document["received_at"]
        assert document.pop("user_agent", None) is None
        place = (document["event_info"]["extra"]["source"], document["log_id"])
        assert document_id == (place[1] if len(place[1]) == 36 else " ".join(place))
        assert place not in found, f"{place} is there twice"
        found[place] = document
    assert found == {(one["event_info"]["extra"]["source"], one["log_id"]): one for one in expected}


@pytest.mark.parametrize("mode", MODES)
async def test_each_mode_brings_every_event_to_opensearch_as_the_package_was_given_it(
    opensearch: OpenSearchAddress, tmp_path: Path, mode: Mode
) -> None:
    environment = f"cloudevents-{mode}"
    settings = {**QUICK, "OPEN_SEARCH_DNS": opensearch.url, "SERVER_ENVIRONMENT": environment}
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        made = [make_event(number) for number in range(70)]
        Sender(server).send(in_requests(mode, [event for event, _ in made]))
        await assert_documents(Index(opensearch.url, environment), [document for _, document in made])


@pytest.mark.parametrize("mode", MODES)
async def test_while_opensearch_is_away_and_the_server_is_killed_each_event_arrives_once(
    opensearch: OpenSearchAddress, tmp_path: Path, mode: Mode
) -> None:
    environment = f"cloudevents-{mode}-faults"
    with FaultyProxy(opensearch.url) as proxy:
        settings = {**QUICK, "OPEN_SEARCH_DNS": proxy.url, "SERVER_ENVIRONMENT": environment}
        with ForebayServer(tmp_path, settings) as server:
            server.start()
            made = [make_event(number) for number in range(EVENTS)]
            sender = Sender(server)
            await asyncio.to_thread(send_and_interfere, sender, in_requests(mode, [event for event, _ in made]), proxy)
            assert sender.repeated > 0, "no request was interrupted: the kill came at the wrong moment"
            await assert_documents(Index(opensearch.url, environment), [document for _, document in made])
