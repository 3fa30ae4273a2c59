"""Requests as browsers send them, on one connection: preflights, pages of other origins, and beacons."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from forebay.intake.formats.format import UNPROVEN_BODY_BYTES_MAX
from forebay.intake.formats.segment import BATCH_BYTES_MAX
from forebay.model import Admission, entry_document
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from unit.intake.fakes import REQUEST_LIMITS, SECRET, FakeTransport, Server

SHOP = "https://shop.example"
OTHER = "https://other.example"
TOKEN = make_token(SECRET, "alice", [Scope.WRITE], 86_400)
BEARER = f"Bearer {TOKEN}"
NDJSON = "application/x-ndjson"
EVENT = {"page": "/home", "event": "click"}


def request(body: str = "", url: str = "/events", method: str = "POST", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"{method} {url} HTTP/1.1", "Host: events.example", *lines])
    return f"{head}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


async def send(server: Server, *pieces: bytes) -> FakeTransport:
    """Send pieces on a connection, and admit whatever comes through."""
    connection, transport = server.connect()
    for piece in pieces:
        connection.data_received(piece)
    # A large input is read piece by piece, each in a turn of the loop.
    for _ in range(100):
        await asyncio.sleep(0)
    for taken in server.admitter.requests:
        if taken.response is None:
            taken.admitted(Admission.CREATED)
    return transport


def stored(server: Server) -> list[dict[str, Any]]:
    """Return the documents of all requests that came through."""
    entries = [entry for taken in server.admitter.requests for part in taken.parts for entry in part.entries]
    return [json.loads(entry_document(entry)) for entry in entries]


@pytest.fixture
async def server() -> Server:
    return Server(origins=[SHOP])


# Origins


async def test_a_preflight_is_answered_for_each_event_address_and_no_other(server: Server) -> None:
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    for url in ("/events", "/events/batch", "/events?ack=memory"):
        transport = await send(server, request(url=url, method="OPTIONS", Origin=SHOP, **asks))
        assert transport.statuses == [204]
        head = transport.written.decode()
        assert f"access-control-allow-origin: {SHOP}\r\n" in head
        assert "access-control-allow-headers: authorization, " in head
        assert head.endswith("\r\n\r\n")
    assert (await send(server, request(method="OPTIONS", Origin=OTHER, **asks))).statuses == [403]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(json.dumps(EVENT), Authorization=BEARER, Origin=SHOP), 200),
        (request("{", Authorization=BEARER, Origin=SHOP), 400),
        (request(json.dumps(EVENT), Authorization="Bearer x", Origin=SHOP), 401),
        (request("x", Authorization=BEARER, Origin=SHOP, Content_Type="text/html"), 415),
        (request("x" * 400_001, Authorization=BEARER, Origin=SHOP), 413),
        (request(json.dumps(EVENT), Authorization="Bearer x", Origin=SHOP, Expect="100-continue"), 401),
    ],
)
async def test_a_page_may_read_each_answer(server: Server, sent: bytes, status: int) -> None:
    transport = await send(server, sent)
    assert transport.statuses == [status]
    assert transport.written.count(f"access-control-allow-origin: {SHOP}\r\n".encode()) == 1


async def test_a_body_that_grows_too_large_gets_an_answer_that_the_page_may_read(server: Server) -> None:
    head = f"POST /events HTTP/1.1\r\nAuthorization: {BEARER}\r\nOrigin: {SHOP}\r\nTransfer-Encoding: chunked\r\n\r\n"
    transport = await send(server, head.encode(), b"%x\r\n%b\r\n" % (400_001, b"x" * 400_001))
    assert transport.statuses == [413]
    assert f"access-control-allow-origin: {SHOP}\r\n".encode() in transport.written


async def test_a_known_head_of_a_page_gets_the_same_answer_again(server: Server) -> None:
    sent = request(json.dumps(EVENT), Authorization=BEARER, Origin=SHOP)
    transport = await send(server, sent, sent)
    first, second = transport.written.split(b"HTTP/1.1 ")[1:]
    assert first.partition(b"\r\n\r\n")[0] == second.partition(b"\r\n\r\n")[0]
    assert f"access-control-allow-origin: {SHOP}".encode() in second


async def test_a_page_of_another_origin_sends_nothing(server: Server) -> None:
    for sent in (
        request(json.dumps(EVENT), Authorization=BEARER, Origin=OTHER),
        request(json.dumps(EVENT), f"/events?access_token={TOKEN}", Origin=OTHER, Content_Type="text/plain"),
        request(json.dumps(EVENT | {"access_token": TOKEN}), Origin=OTHER, Content_Type="text/plain"),
    ):
        transport = await send(server, sent)
        assert transport.statuses == [403]
        assert b"access-control" not in transport.written
    assert stored(server) == []


# Beacons


def beacons(token: str) -> list[bytes]:
    """Return each way in which a beacon can carry a token."""
    event = json.dumps(EVENT)
    with_token = json.dumps(EVENT | {"access_token": token})
    text, form = "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"
    return [
        request(event, f"/events?access_token={token}", Content_Type=text),
        request(with_token, Content_Type=text),
        request(urlencode({"access_token": token, "data": event}), Content_Type=form),
        request(urlencode({"data": with_token}), Content_Type=form),
        request(urlencode({"data": event}), f"/events?access_token={token}", Content_Type=form),
    ]


async def test_a_beacon_is_taken_with_its_token_wherever_it_is(server: Server) -> None:
    for sent in beacons(TOKEN):
        assert (await send(server, sent)).statuses == [200]
    assert len(stored(server)) == 5
    assert all(document["event_info"] == EVENT for document in stored(server))
    assert {document["user_id"] for document in stored(server)} == {"alice"}
    assert TOKEN not in json.dumps(stored(server))


async def test_a_beacon_may_begin_with_a_byte_order_mark(server: Server) -> None:
    body = "\ufeff" + json.dumps(EVENT | {"access_token": TOKEN})
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        assert (await send(server, request(body, Content_Type=content_type))).statuses == [200]


async def test_a_beacon_in_pieces_is_taken(server: Server) -> None:
    for sent in beacons(TOKEN):
        assert (await send(server, *(sent[at : at + 7] for at in range(0, len(sent), 7)))).statuses == [200]
    assert len(stored(server)) == 5


async def test_a_beacon_whose_token_is_not_valid_gets_401_and_shows_nothing_of_it(server: Server) -> None:
    for sent in beacons(f"{TOKEN[:-4]}AAAA"):
        transport = await send(server, sent)
        assert transport.statuses == [401]
        assert TOKEN[:20].encode() not in transport.written
    assert stored(server) == []
    assert server.counters.rejected == 5


async def test_a_text_without_any_token_gets_401(server: Server) -> None:
    for body in (json.dumps(EVENT), "", "[]", "x"):
        assert (await send(server, request(body, Content_Type="text/plain"))).statuses == [401]


async def test_requests_of_different_users_on_one_connection_are_told_apart(server: Server) -> None:
    others = [make_token(SECRET, user, [Scope.WRITE], 86_400) for user in ("bob", "carol")]
    sent = [
        request(json.dumps(EVENT | {"access_token": token}), Content_Type="text/plain") for token in (TOKEN, *others)
    ]
    assert (await send(server, *sent, *sent)).statuses == [200] * 6
    assert [document["user_id"] for document in stored(server)] == ["alice", "bob", "carol"] * 2


async def test_a_body_whose_sender_is_not_known_is_smaller(server: Server) -> None:
    event = json.dumps(EVENT | {"label": "x" * UNPROVEN_BODY_BYTES_MAX})
    with_token = json.dumps(EVENT | {"label": "x" * UNPROVEN_BODY_BYTES_MAX, "access_token": TOKEN})
    assert (await send(server, request(with_token, Content_Type="text/plain"))).statuses == [413]
    chunked = "POST /events HTTP/1.1\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = f"{chunked}{len(with_token):x}\r\n{with_token}\r\n0\r\n\r\n".encode()
    assert (await send(server, chunk)).statuses == [413]
    known = request(event, f"/events?access_token={TOKEN}", Content_Type="text/plain")
    assert (await send(server, known)).statuses == [200]


@pytest.mark.parametrize(("path", "most"), [("/events", UNPROVEN_BODY_BYTES_MAX), ("/v1/track", BATCH_BYTES_MAX)])
async def test_a_body_that_shows_no_token_is_refused_as_soon_as_it_is_too_large(path: str, most: int) -> None:
    server = Server(REQUEST_LIMITS._replace(body_bytes_max=4 * most))
    connection, transport = server.connect()
    head = f"POST {path} HTTP/1.1\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.data_received(head.encode())
    for _ in range(most // 1_024):
        connection.data_received(b"400\r\n" + b" " * 1_024 + b"\r\n")
    assert transport.statuses == []
    connection.data_received(b"1\r\n \r\n")
    assert (transport.statuses, transport.is_half_closed, server.limits.used_bytes) == ([413], True, 0)
    assert server.counters.rejected == 1


async def test_a_body_whose_token_came_before_it_may_be_larger() -> None:
    server = Server()
    body = json.dumps(EVENT | {"label": "x" * UNPROVEN_BODY_BYTES_MAX})
    head = f"POST /events HTTP/1.1\r\nAuthorization: {BEARER}\r\nTransfer-Encoding: chunked\r\n"
    chunks = f"Content-Type: text/plain\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n"
    assert (await send(server, head.encode() + chunks.encode())).statuses == [200]


async def test_a_token_stays_in_no_event_wherever_it_stands(server: Server) -> None:
    with_token = EVENT | {"access_token": TOKEN, "other": 1}
    batch, text = [with_token, EVENT | {"access_token": TOKEN}], "text/plain"
    envelope = {"access_token": TOKEN, "events": batch}
    for sent in (
        request(json.dumps(with_token), Authorization=BEARER),
        request(json.dumps(batch), "/events/batch", Authorization=BEARER),
        request(json.dumps(batch), f"/events/batch?access_token={TOKEN}", Content_Type=text),
        request(json.dumps(envelope), "/events/batch", Content_Type=text),
        request("\n".join(map(json.dumps, batch)), "/events/batch", Authorization=BEARER, Content_Type=NDJSON),
    ):
        assert (await send(server, sent)).statuses == [200]
    assert len(stored(server)) == 9
    assert TOKEN not in json.dumps(stored(server))
    assert {json.dumps(document["event_info"].get("extra")) for document in stored(server)} == {"null", '{"other": 1}'}


# A token in a body is kept in no event, whatever its format


OTLP_BODY = {
    "access_token": "T",
    "resourceLogs": [
        {
            "access_token": "T",
            "resource": {"access_token": "T"},
            "scopeLogs": [{"access_token": "T", "scope": {"access_token": "T"}, "logRecords": [{"access_token": "T"}]}],
        }
    ],
}
TRACK = {"event": "Paid", "messageId": "m", "access_token": "T", "writeKey": "T"}
HOLDING = {
    "/events": {"page": "/", "event": "e", "access_token": "T"},
    "/events/batch": [{"page": "/", "event": "e", "access_token": "T"}],
    "/v1/track": TRACK,
    "/v1/batch": {"batch": [TRACK | {"type": "track"}], "access_token": "T", "writeKey": "T"},
    "/v1/logs": OTLP_BODY,
    "/ubi_events": [{"action_name": "a", "access_token": "T"}],
}


@pytest.mark.parametrize("path", HOLDING)
async def test_a_token_in_a_body_ends_in_no_event(path: str) -> None:
    server = Server()
    connection, _ = server.connect()
    body = json.dumps(HOLDING[path]).replace('"T"', json.dumps(TOKEN))
    head = f"POST {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    connection.data_received(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    (request,) = server.admitter.requests
    (entry,) = [entry for part in request.parts for entry in part.entries]
    assert TOKEN.encode() not in entry


@pytest.mark.parametrize("field", ["writeKey", "access_token"])
async def test_a_beacon_of_segment_may_have_its_token_in_either_field(field: str) -> None:
    server = Server()
    connection, _ = server.connect()
    body = json.dumps({"event": "Paid", field: TOKEN})
    head = "POST /v1/track HTTP/1.1\r\nContent-Type: text/plain\r\n"
    connection.data_received(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    assert len(server.admitter.requests) == 1
