"""Who sends how much, and from where: limits of rates and the client's address, on one connection."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.errors import SpoolUnavailable
from forebay.intake.connection import EXCESS_PAUSE_S
from forebay.intake.limits import COPIES_BYTES_MAX
from forebay.intake.proxied import ProxiedConnection
from forebay.intake.senders import count_bytes, encode_sender, name_sender
from forebay.model import Admission, entry_document
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from unit.intake.fakes import IN_HAND_BYTES_MAX, REQUEST_LIMITS, SECRET, FakeTransport, Server

EVENT = {"page": "/home", "event": "click"}
PROXY = "10.0.0.1"
PROXY_LINE = b"PROXY TCP4 203.0.113.7 10.0.0.9 5000 3000\r\n"
BEARER = {user: f"Bearer {make_token(SECRET, user, [Scope.WRITE], 86_400)}" for user in ("alice", "bob")}


def request(events: int = 1, user: str = "alice", body: str | None = None, **headers: str) -> bytes:
    path, content = ("/events", json.dumps(EVENT)) if events == 1 else ("/events/batch", json.dumps([EVENT] * events))
    content = content if body is None else body
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"POST {path} HTTP/1.1", f"Authorization: {BEARER[user]}", *lines])
    return f"{head}\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()


def send(server: Server, *pieces: bytes, peer: str = "192.0.2.1", is_proxied: bool = False) -> FakeTransport:
    connection, transport = (
        server.connect(peer=peer, kind=ProxiedConnection) if is_proxied else server.connect(peer=peer)
    )
    for piece in pieces:
        connection.data_received(piece)
    for taken in server.admitter.requests:
        if taken.response is None:
            taken.admitted(Admission.CREATED)
    return transport


def addresses(server: Server) -> list[Any]:
    entries = [entry for taken in server.admitter.requests for part in taken.parts for entry in part.entries]
    return [json.loads(entry_document(entry)).get("client_address") for entry in entries]


# How much


CALL = {"type": "track", "event": "Paid"}
CLOUD_EVENT = {"specversion": "1.0", "id": "1", "source": "/", "type": "click"}
BATCHES: dict[str, tuple[str, str, Callable[[int], str]]] = {
    "array": ("/events/batch", "application/json", lambda events: json.dumps([EVENT] * events)),
    "lines": ("/events", "application/x-ndjson", lambda events: "\n".join([json.dumps(EVENT)] * events)),
    "CloudEvents": (
        "/events/batch",
        "application/cloudevents-batch+json",
        lambda events: json.dumps([CLOUD_EVENT] * events),
    ),
    "UBI": ("/ubi_events", "application/json", lambda events: json.dumps([EVENT] * events)),
    "Segment": ("/v1/batch", "application/json", lambda events: json.dumps({"batch": [CALL] * events})),
    "OTLP": (
        "/v1/logs",
        "application/json",
        lambda events: json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}] * events}]}]}),
    ),
}


@pytest.mark.parametrize("form", BATCHES)
async def test_the_copies_of_a_sender_in_one_request_have_a_limit(form: str) -> None:
    # A byte that is no UTF-8 becomes two.
    agent = b"\xff" * 15_000
    fitting = COPIES_BYTES_MAX // count_bytes(encode_sender("alice", None, None, None, agent))
    server = Server(REQUEST_LIMITS._replace(header_bytes_max=16_384, batch_events_max=10_000))
    path, media_type, make_body = BATCHES[form]
    connection, transport = server.connect()
    for events in (1, fitting, fitting + 1):
        body = make_body(events).encode()
        lines = [b"POST %b HTTP/1.1" % path.encode(), b"Authorization: %b" % BEARER["alice"].encode()]
        lines += [b"Content-Type: %b" % media_type.encode(), b"User-Agent: %b" % agent]
        connection.data_received(b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body]))
        for _ in range(100):
            await asyncio.sleep(0)
        for taken in server.admitter.requests:
            if taken.response is None:
                taken.admitted(Admission.CREATED)
    assert transport.statuses == [200, 200, 413]
    assert b"the copies of the sender's header lines and user, one for each event, exceed 33554432 bytes" in (
        transport.written
    )
    assert server.counters.accepted == 1 + fitting


async def test_beyond_its_rate_a_sender_gets_429_and_is_told_when_to_come_back() -> None:
    server = Server(token_rate_per_s=0.01, rate_burst_s=300)
    transport = send(server, *[request()] * 4)
    assert transport.statuses == [200, 200, 200, 429]
    refusal = transport.written.partition(b"HTTP/1.1 429")[2].decode()
    assert "retry-after: " in refusal
    assert 'ratelimit: "token";r=0;t=' in refusal
    assert json.loads(refusal.partition("\r\n\r\n")[2])["status"] == 429
    assert (server.counters.accepted, server.counters.rejected) == (3, 1)
    assert send(server, request(user="bob")).statuses == [200]


async def test_all_events_of_a_batch_are_counted_and_none_is_taken_in_part() -> None:
    server = Server(token_rate_per_s=0.01, rate_burst_s=100)
    assert send(server, request(50), request()).statuses == [200, 429]
    assert server.counters.accepted == 50


async def test_each_device_and_each_address_has_a_limit_of_its_own() -> None:
    server = Server(device_rate_per_s=0.01, rate_burst_s=1)
    assert send(server, request(Device_UUID="a"), request(Device_UUID="a"), request(Device_UUID="b")).statuses == [
        200,
        429,
        200,
    ]
    server = Server(address_rate_per_s=0.01, rate_burst_s=1)
    assert send(server, request(), request(user="bob")).statuses == [200, 429]
    # The same bytes from another address.
    assert send(server, request(), request(), peer="192.0.2.2").statuses == [200, 429]
    assert send(server, request(), peer="2001:db8::1").statuses == [200]
    assert send(server, request(), peer="2001:db8::2").statuses == [429]


async def test_a_known_head_over_the_limit_gets_the_same_answer_as_a_new_one() -> None:
    answers = []
    whole: dict[str, Any] = {}
    for lines in (whole, {"Expect": "nothing"}):
        server = Server(token_rate_per_s=0.001, rate_burst_s=1, origins=["https://shop.example"])
        sent = request(Origin="https://shop.example", **lines)
        pieces = [sent, sent] if not lines else [sent, sent[:9], sent[9:]]
        transport = send(server, *pieces)
        assert transport.statuses == [200, 429]
        answers.append(transport.written.partition(b"HTTP/1.1 429")[2])
    assert answers[0] == answers[1]
    assert b"access-control-allow-origin: https://shop.example\r\n" in answers[0]


async def test_over_the_limit_a_known_head_gets_429_also_while_memory_is_short() -> None:
    server = Server(token_rate_per_s=0.001, rate_burst_s=1)
    send(server, request())
    server.limits.used_bytes += IN_HAND_BYTES_MAX + 1
    assert send(server, request(), request(X="another head")).statuses == [429, 429]
    assert (server.counters.rejected, server.counters.crowded) == (2, {})


async def test_what_is_refused_counts_nothing() -> None:
    server = Server(token_rate_per_s=0.01, rate_burst_s=200, token_quota_per_day=2)
    bad = [
        request(body="{"),
        request(2, body="["),
        request(body="{}"),
        request(2, body="[]"),
        request(2, body="[{},1]"),
    ]
    assert send(server, *bad, *bad, request(2, body=json.dumps([EVENT, {}, EVENT]))).statuses[-1] == 200
    assert server.counters.accepted == 2
    assert send(server, request()).statuses == [429]


async def test_what_could_not_be_kept_is_given_back() -> None:
    server = Server(token_rate_per_s=0.01, rate_burst_s=100, token_quota_per_day=5)
    connection, transport = server.connect()
    for _ in range(10):
        connection.data_received(request(5))
        server.admitter.requests[-1].refused(SpoolUnavailable("the disk is full"))
    assert send(server, request()).statuses == [200]
    assert set(transport.statuses) == {503}


async def test_a_beacon_counts_once_its_token_is_known() -> None:
    server = Server(token_rate_per_s=0.01, rate_burst_s=1)
    body = json.dumps(EVENT | {"access_token": BEARER["alice"].partition(" ")[2]})
    beacon = f"POST /events HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    assert send(server, beacon, beacon, request()).statuses == [200, 429, 429]


async def test_a_client_that_sends_on_and_on_without_waiting_is_read_more_slowly_once_it_is_over_its_limit() -> None:
    server = Server(token_rate_per_s=0.01, rate_burst_s=100)
    transport = send(server, request() * 3)
    assert (transport.statuses, transport.is_paused) == ([200, 429, 429], True)
    while transport.is_paused:
        await asyncio.sleep(0)
    assert transport.statuses == [200, 429, 429]


async def test_a_flood_on_many_connections_is_read_as_slowly_as_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    pauses: list[tuple[float, Callable[[], object]]] = []
    monkeypatch.setattr(loop, "call_later", lambda delay_s, callback: pauses.append((delay_s, callback)))
    server = Server(token_rate_per_s=0.01, rate_burst_s=100)
    flooding = [send(server, request() * 3) for _ in range(3)]
    assert [delay_s for delay_s, _ in pauses] == [EXCESS_PAUSE_S, 2 * EXCESS_PAUSE_S, 3 * EXCESS_PAUSE_S]
    # It counts for the others until its pause is over, also if the client is gone.
    flooding[0].abort()
    for _, end_pause in pauses:
        end_pause()
    assert (server.limits.paused, [each.is_paused for each in flooding]) == (0, [True, False, False])


async def test_a_client_with_another_head_each_time_is_read_more_slowly_too() -> None:
    server = Server(token_rate_per_s=0.01, rate_burst_s=100)
    transport = send(server, b"".join(request(Device_UUID=str(number)) for number in range(3)))
    assert (transport.statuses, transport.is_paused) == ([200, 429, 429], True)


async def test_all_that_a_client_over_its_limit_sends_is_answered_in_the_end() -> None:
    server = Server(token_rate_per_s=0.01, rate_burst_s=100)
    transport = send(server, request() * 60)
    while len(transport.statuses) < 60:
        await asyncio.sleep(0)
    assert transport.statuses == [200] + [429] * 59


async def test_a_client_that_waits_for_its_answers_is_read_at_once_also_over_its_limit() -> None:
    # It may be a proxy, whose next request is another client's.
    server = Server(token_rate_per_s=0.01, rate_burst_s=100)
    transport = send(server, request(), request(), request(), request(user="bob") + request())
    assert (transport.statuses, transport.is_paused) == ([200, 429, 429, 200, 429], False)


async def test_without_limits_nothing_is_counted() -> None:
    server = Server()
    assert set(send(server, *[request()] * 500).statuses) == {200}
    assert all(taken.grant.limited_as is None for taken in server.admitter.requests)


# From where


@pytest.mark.parametrize(
    ("settings", "stored"),
    [({}, None), ({"store_address": "whole"}, "192.0.2.1"), ({"store_address": "cut"}, "192.0.2.0")],
)
async def test_an_address_is_stored_only_if_that_is_wished(settings: dict[str, Any], stored: str | None) -> None:
    server = Server(**settings)
    send(server, request(), request())
    assert addresses(server) == [stored, stored]


async def test_the_same_head_from_another_address_is_of_another_client() -> None:
    server = Server(store_address="whole")
    for peer in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1"):
        send(server, request(), request(), peer=peer)
    expected = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert addresses(server) == [address for address in expected for _ in range(2)]


async def test_only_a_trusted_proxy_names_another_address() -> None:
    server = Server(store_address="whole", trusted_proxies="10.0.0.0/8")
    forged = request(X_Forwarded_For="198.51.100.9")
    send(server, forged, forged)
    send(server, forged, forged, peer=PROXY)
    send(server, request(X_Forwarded_For="1.2.3.4, 198.51.100.9, 10.1.1.1"), peer=PROXY)
    assert addresses(server) == ["192.0.2.1", "192.0.2.1", "198.51.100.9", "198.51.100.9", "198.51.100.9"]


async def test_a_forged_address_escapes_no_limit() -> None:
    server = Server(address_rate_per_s=0.01, rate_burst_s=1, trusted_proxies="10.0.0.0/8")
    sent = [request(X_Forwarded_For=f"198.51.100.{number}") for number in range(5)]
    assert send(server, *sent).statuses == [200, 429, 429, 429, 429]


# The PROXY protocol


@pytest.fixture
async def proxied() -> Server:
    return Server(store_address="whole", trusted_proxies="10.0.0.0/8", proxy_protocol=True)


async def test_a_connection_from_a_proxy_begins_with_its_client(proxied: Server) -> None:
    sent = PROXY_LINE + request()
    for pieces in ([sent], [PROXY_LINE, request()], [sent[at : at + 1] for at in range(len(sent))]):
        assert send(proxied, *pieces, request(), peer=PROXY, is_proxied=True).statuses == [200, 200]
    assert addresses(proxied) == ["203.0.113.7"] * 6


async def test_two_clients_of_a_proxy_with_the_same_head_are_told_apart(proxied: Server) -> None:
    for client in (b"203.0.113.7", b"203.0.113.8"):
        line = PROXY_LINE.replace(b"203.0.113.7", client)
        send(proxied, line + request(), request(), peer=PROXY, is_proxied=True)
    assert addresses(proxied) == ["203.0.113.7", "203.0.113.7", "203.0.113.8", "203.0.113.8"]


async def test_a_connection_from_a_proxy_without_a_header_is_closed_and_told(proxied: Server) -> None:
    with capture_logs() as lines:
        transport = send(proxied, request(), peer=PROXY, is_proxied=True)
    assert (transport.written, transport.ended) == (b"", "closed")
    assert [line["event"] for line in lines] == ["proxy_header_missing"]


async def test_another_peer_cannot_name_a_client(proxied: Server) -> None:
    assert send(proxied, PROXY_LINE + request(), is_proxied=True).statuses == [400]
    assert send(proxied, request(), is_proxied=True).statuses == [200]
    assert addresses(proxied) == ["192.0.2.1"]


def test_the_device_of_a_head_is_not_kept_once_another_sends() -> None:
    sender = encode_sender("alice", b"device of the head")
    before = sys.getrefcount(sender[1])
    _, devices = name_sender(sender, "", {"os_version": "15"})
    assert devices == b',"device_uuid":"device of the head","os_version":"15"}\n'
    name_sender(encode_sender("bob", b"another device"), "", {"os_version": "15"})
    after = sys.getrefcount(sender[1])
    assert after == before
