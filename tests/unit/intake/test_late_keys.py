"""Requests that wait for the key of their token, on one connection, and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

import jwt
import pytest
from structlog.testing import capture_logs

from forebay.denials.entries import Kind
from forebay.errors import SpoolInDoubt
from forebay.intake.connection import EVENT_BYTES, UNANSWERED_MAX, Connection
from forebay.intake.limits import RequestLimits
from forebay.model import Admission
from forebay.telemetry.counters import Overload
from forebay.tokens.claims import Scope
from forebay.tokens.keys import Key
from forebay.tokens.making import make_token
from forebay.tokens.provider import Provider
from unit.denials.making import Files, denial
from unit.intake.fakes import (
    KEEP_ALIVE_S,
    NO_DENIALS,
    REQUEST_LIMITS,
    REQUEST_TIMEOUT_S,
    SECRET,
    FakeTransport,
    LateKeys,
    Server,
)

ISSUER = "https://id.example"
THEIR_SECRET = "another secret that is long enough"
SHOP = "https://shop.example"
OURS = make_token(SECRET, "alice", [Scope.WRITE], 86_400)
THEIRS = make_token(THEIR_SECRET, "bob", [Scope.WRITE], 86_400, iss=ISSUER)
FORGED = make_token(SECRET, "bob", [Scope.WRITE], 86_400, iss=ISSUER)
NOT_OURS = make_token(THEIR_SECRET, "alice", [Scope.WRITE], 86_400)
EXPIRED = make_token(SECRET, "alice", [Scope.WRITE], -86_400)
LIMITED = make_token(SECRET, "alice", [Scope.WRITE], 86_400, origins=["https://other.example"])
FORM = "application/x-www-form-urlencoded"
IN_HAND_BYTES_MAX = 3_000_000
PING = b"GET /ping HTTP/1.1\r\n\r\n"
EVENT = {"page": "/home", "event": "click"}
KEY = Key("new", frozenset({"HS256"}), THEIR_SECRET, jwt.api_jws.decode)


End: TypeAlias = Callable[[LateKeys], Awaitable[None]]


async def publish(keys: LateKeys, *published: Key) -> None:
    keys.publish(*published)
    await turns()


async def publish_it(keys: LateKeys) -> None:
    await publish(keys, KEY)


async def publish_none(keys: LateKeys) -> None:
    await publish(keys)


async def stay_silent(keys: LateKeys) -> None:
    keys.end_the_wait()
    await turns()


async def turns() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.fixture
async def keys() -> LateKeys:
    return LateKeys()


@pytest.fixture
async def server(keys: LateKeys) -> Server:
    return serve(keys)


def serve(keys: LateKeys, limits: RequestLimits = REQUEST_LIMITS, denials: Path = NO_DENIALS) -> Server:
    server = Server(limits, IN_HAND_BYTES_MAX, origins=[SHOP], denials=denials)
    server.verifier.add(ISSUER, Provider(keys, frozenset({"HS256"}), ISSUER))
    return server


@pytest.fixture
async def opened(server: Server) -> tuple[Connection, FakeTransport]:
    return server.connect()


@pytest.fixture(autouse=True)
def _nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever happens, it must not end in the log of asyncio or of Forebay."""
    with capture_logs() as lines, caplog.at_level("ERROR", "asyncio"):
        yield
    assert [*caplog.messages, *(line["event"] for line in lines if line["log_level"] == "error")] == []


def request(token: str | None = THEIRS, body: str = json.dumps(EVENT), url: str = "/events", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"POST {url} HTTP/1.1", *lines, "", body]).encode()


def beacons(token: str) -> list[bytes]:
    body = json.dumps(EVENT | {"access_token": token})
    return [
        request(None, body, Content_Type="text/plain"),
        request(None, urlencode({"data": body}), Content_Type=FORM),
        request(None, urlencode({"data": json.dumps(EVENT), "access_token": token}), Content_Type=FORM),
    ]


def in_each_way(token: str) -> list[bytes]:
    return [request(token), request(None, url=f"/events?access_token={token}"), *beacons(token)]


def admit(server: Server) -> None:
    for taken in server.admitter.requests:
        if taken.response is None:
            taken.admitted(Admission.CREATED)


def users(server: Server) -> list[str]:
    return [taken.grant.claims.user_id for taken in server.admitter.requests]


async def wait_on(opened: tuple[Connection, FakeTransport], *sent: bytes) -> None:
    for piece in sent:
        opened[0].data_received(piece)
    await turns()


# The key


@pytest.mark.parametrize("number", range(5))
async def test_a_request_whose_key_arrives_is_taken(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys, number: int
) -> None:
    await wait_on(opened, in_each_way(THEIRS)[number])
    assert (opened[1].written, server.admitter.requests, keys.waiting) == (b"", [], 1)
    await publish(keys, KEY)
    admit(server)
    assert (opened[1].statuses, users(server), server.limits.used_bytes) == ([200], ["bob"], 0)
    assert list(server.limits.idle) == [opened[0]]
    assert (server.counters.accepted, server.counters.rejected) == (1, 0)


@pytest.mark.parametrize("number", range(5))
async def test_a_request_whose_key_is_none_of_the_provider_gets_401(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys, number: int
) -> None:
    await wait_on(opened, in_each_way(FORGED)[number])
    await publish(keys, KEY)
    assert (opened[1].statuses, server.admitter.requests, server.limits.used_bytes) == ([401], [], 0)
    assert server.counters.rejected == 1
    assert FORGED[:20].encode() not in opened[1].written


@pytest.mark.parametrize("number", range(5))
async def test_a_request_whose_provider_is_silent_may_come_again(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys, number: int
) -> None:
    await wait_on(opened, in_each_way(THEIRS)[number])
    await stay_silent(keys)
    assert (opened[1].statuses, server.admitter.requests, server.limits.used_bytes) == ([503], [], 0)
    assert b"retry-after: 10\r\n" in opened[1].written
    assert list(server.limits.idle) == [opened[0]]
    assert server.counters.rejected == 0  # it was no mistake of the client's
    await publish(keys, KEY)
    await wait_on(opened, in_each_way(THEIRS)[number])
    admit(server)
    assert opened[1].statuses == [503, 200]


@pytest.mark.parametrize(("end", "status"), [(stay_silent, 503), (publish_none, 401)])
async def test_a_page_may_read_an_answer_that_came_late(
    opened: tuple[Connection, FakeTransport], keys: LateKeys, end: End, status: int
) -> None:
    await wait_on(opened, request(Origin=SHOP))
    await end(keys)
    assert opened[1].statuses == [status]
    assert f"access-control-allow-origin: {SHOP}\r\n".encode() in opened[1].written


async def test_a_head_is_known_only_after_a_request_that_did_not_wait(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request(), request())
    assert server.intake.heads._grants == {}
    await publish(keys, KEY)
    assert server.intake.heads._grants == {}
    await wait_on(opened, request())
    (grant,) = server.intake.heads._grants.values()
    assert (grant.claims.user_id, grant.claims.issuer) == ("bob", ISSUER)
    for beacon in beacons(THEIRS) * 2:
        await wait_on(opened, beacon)
    assert len(server.intake.heads._grants) == 1
    assert users(server) == ["bob"] * 9


async def test_a_head_that_waits_is_not_taken_by_that_of_the_request_before(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    ours, theirs = request(OURS), request()
    await wait_on(opened, ours[:9], ours[9:], theirs, theirs, theirs[:9], theirs[9:], ours, ours)
    assert users(server) == ["alice"] * 3
    assert {grant.claims.user_id for grant in server.intake.heads._grants.values()} == {"alice"}
    await publish(keys, KEY)
    assert sorted(users(server)) == ["alice"] * 3 + ["bob"] * 3


# Refusals


async def let_the_time_pass(server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys) -> None:
    del server, keys
    opened[0].expire(asyncio.get_running_loop().time() + REQUEST_TIMEOUT_S)


async def use_the_memory_up(server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys) -> None:
    del keys
    server.limits.used_bytes += IN_HAND_BYTES_MAX + 1
    await wait_on(opened, b"x")


async def use_half_of_the_memory_up(server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys) -> None:
    del keys
    server.limits.used_bytes += IN_HAND_BYTES_MAX // 2
    await wait_on(opened, b"x")


async def let_the_provider_be_silent(server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys) -> None:
    del server
    await wait_on(opened, b"x")
    await stay_silent(keys)


async def let_the_provider_have_no_key(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    del server
    await wait_on(opened, b"x")
    await publish_none(keys)


async def end_the_server(server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys) -> None:
    del server, keys
    await wait_on(opened, b"x")
    opened[0].stop_waiting()


@pytest.mark.parametrize("media_type", ["application/json", "application/x-protobuf"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize(
    ("refuse", "status"),
    [
        (let_the_time_pass, 503),
        (use_the_memory_up, 503),
        (use_half_of_the_memory_up, 503),
        (let_the_provider_be_silent, 503),
        (let_the_provider_have_no_key, 401),
        (end_the_server, 503),
    ],
)
async def test_a_request_is_refused_in_its_own_format_before_its_key_is_there_too(
    server: Server,
    opened: tuple[Connection, FakeTransport],
    keys: LateKeys,
    refuse: Callable[[Server, tuple[Connection, FakeTransport], LateKeys], Awaitable[None]],
    status: int,
    coding: str,
    media_type: str,
) -> None:
    await wait_on(opened, request(body="x", url="/v1/logs", Content_Type=media_type, Content_Encoding=coding)[:-1])
    await refuse(server, opened, keys)
    assert opened[1].statuses == [status]
    assert f"content-type: {media_type}\r\n".encode() in opened[1].written
    # Exporters send nothing again without it.
    assert (b"retry-after: " in opened[1].written) == (status == 503)


async def test_a_fault_of_our_own_is_answered_in_the_format_of_a_request_that_is_not_decided(
    server: Server, opened: tuple[Connection, FakeTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.intake, "decide", None)
    with capture_logs() as lines:
        await wait_on(opened, request(url="/v1/logs", Content_Type="application/x-protobuf"))
    assert [line["path"] for line in lines] == ["/v1/logs"]
    assert b"content-type: application/x-protobuf\r\n" in opened[1].written


# The others


async def test_answers_leave_in_the_order_of_their_requests(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    ours = request(OURS)
    await wait_on(opened, ours, request(), PING, ours, request(FORGED), request(OURS, "{"), ours + beacons(THEIRS)[0])
    assert (len(server.admitter.requests), opened[1].written) == (3, b"")
    admit(server)
    assert opened[1].statuses == [200]
    await publish(keys, KEY)
    admit(server)
    assert opened[1].statuses == [200, 200, 200, 200, 401, 400, 200, 200]
    assert users(server) == ["alice"] * 3 + ["bob"] * 2
    assert server.limits.used_bytes == 0


async def test_other_connections_are_served_meanwhile(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request())
    other = server.connect()
    await wait_on(other, request(OURS))
    admit(server)
    assert (opened[1].statuses, other[1].statuses, keys.waiting) == ([], [200], 1)
    await publish(keys, KEY)


async def test_a_client_is_not_read_while_too_many_of_its_requests_wait(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, *[request()] * UNANSWERED_MAX)
    assert (opened[1].is_paused, keys.waiting) == (True, UNANSWERED_MAX)
    await publish(keys, KEY)
    admit(server)
    await turns()
    assert not opened[1].is_paused
    assert opened[1].statuses == [200] * UNANSWERED_MAX


# Bodies


@pytest.mark.parametrize("url", ["/events/batch", "/events"])
async def test_a_large_body_takes_its_memory_while_it_waits(keys: LateKeys, url: str) -> None:
    server = serve(keys, REQUEST_LIMITS._replace(body_bytes_max=1_048_576))
    event = json.dumps(EVENT | {"label": "x" * (1_048_576 - len(json.dumps(EVENT | {"label": ""})) - 2)})
    body = f"[{event}]" if url == "/events/batch" else f" {event} "
    assert len(body) == 1_048_576
    connection, transport = opened = server.connect()
    sent = request(body=body, url=url)
    await wait_on(opened, *(sent[at : at + 65_536] for at in range(0, len(sent), 65_536)))
    assert (keys.waiting, transport.written, connection.used_bytes) == (1, b"", 0)
    assert server.limits.used_bytes == len(body)
    await publish(keys, KEY)
    (taken,) = server.admitter.requests
    assert server.limits.used_bytes == taken.used_bytes == taken.entry_bytes + EVENT_BYTES
    admit(server)
    assert (transport.statuses, server.limits.used_bytes) == ([200], 0)


async def test_a_body_that_grows_too_large_is_not_waited_for(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    chunk = f"{400_001:x}\r\n{'x' * 400_001}\r\n"
    await wait_on(opened, request(body=chunk, Transfer_Encoding="chunked"))
    assert (opened[1].statuses, keys.waiting, server.limits.used_bytes) == ([413], 0, 0)


@pytest.mark.parametrize(("length", "coding", "status"), [(400_001, "identity", 413), (5, "compress", 415)])
async def test_a_body_that_can_never_be_taken_is_not_waited_for(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys, length: int, coding: str, status: int
) -> None:
    await wait_on(opened, request(body="x" * length, Content_Encoding=coding))
    assert (opened[1].statuses, keys.waiting, server.limits.used_bytes) == ([status], 0, 0)


async def test_a_client_that_asks_first_is_not_asked_for_a_body_that_is_too_large(
    opened: tuple[Connection, FakeTransport],
) -> None:
    head = request(Expect="100-continue").partition(b"Content-Length: ")[0] + b"Content-Length: 400001\r\n\r\n"
    await wait_on(opened, head)
    assert opened[1].statuses == [413]


async def test_chunks_are_put_together_before_they_wait(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    body = json.dumps(EVENT)
    chunks = "".join(f"1\r\n{letter}\r\n" for letter in body) + "0\r\n\r\n"
    await wait_on(opened, request(body=chunks, Transfer_Encoding="chunked"))
    assert server.limits.used_bytes == len(body)
    await publish(keys, KEY)
    admit(server)
    assert (opened[1].statuses, users(server), server.limits.used_bytes) == ([200], ["bob"], 0)


async def test_a_client_that_asks_first_may_send_its_body(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    head, _, body = request(Expect="100-continue").partition(b"\r\n\r\n")
    await wait_on(opened, head + b"\r\n\r\n")
    assert (opened[1].statuses, keys.waiting) == ([100], 0)
    await wait_on(opened, body)
    assert keys.waiting == 1
    await publish(keys, KEY)
    admit(server)
    assert (opened[1].statuses, users(server)) == ([100, 200], ["bob"])


async def test_a_key_that_arrives_while_the_body_does_is_not_waited_for(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request()[:-5])
    await publish(keys, KEY)
    await wait_on(opened, request()[-5:])
    assert (users(server), keys.waiting) == (["bob"], 0)


async def test_a_request_for_which_there_is_no_memory_any_more_may_come_again(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request())
    server.limits.used_bytes += IN_HAND_BYTES_MAX + 1
    await publish(keys, KEY)
    assert (opened[1].statuses, server.limits.used_bytes) == ([503], IN_HAND_BYTES_MAX + 1)
    assert server.counters.crowded == {Overload.NEW_REQUEST: 1}


async def test_requests_that_wait_leave_half_of_the_memory_to_others(server: Server, keys: LateKeys) -> None:
    # Anybody can send these: the name of a key need only be new.
    forged = request(FORGED, json.dumps(EVENT | {"label": "x" * 300_000}))
    opened = [server.connect() for _ in range(8)]
    for client in opened:
        await wait_on(client, forged)
    assert server.limits.used_bytes <= IN_HAND_BYTES_MAX / 2
    assert keys.waiting == 4
    assert [client[1].statuses for client in opened] == [[]] * 4 + [[503]] * 4
    assert all(b"retry-after: " in client[1].written for client in opened[4:])
    other = server.connect()
    await wait_on(other, request(OURS, json.dumps(EVENT | {"label": "x" * 300_000})))
    admit(server)
    assert other[1].statuses == [200]
    await publish(keys, KEY)
    assert [client[1].statuses for client in opened] == [[401]] * 4 + [[503]] * 4
    assert server.limits.used_bytes == 0


# The end


def lose(connection: Connection, transport: FakeTransport) -> None:
    transport.abort()
    connection.connection_lost(None)


@pytest.mark.parametrize("keys_there", [(KEY,), ()])
async def test_if_the_client_leaves_meanwhile_nothing_is_taken(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys, keys_there: tuple[Key, ...]
) -> None:
    await wait_on(opened, request(), beacons(THEIRS)[0], request()[:-5])
    lose(*opened)
    await publish(keys, *keys_there)
    assert (server.admitter.requests, opened[1].written, server.limits.used_bytes) == ([], b"", 0)
    assert (list(server.limits.idle), list(server.limits.slow)) == ([], [])
    assert (keys.waiting, server.counters.requests) == (0, {})


async def test_a_client_that_sends_nothing_more_gets_its_answer(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request())
    assert opened[0].eof_received()
    await publish(keys, KEY)
    admit(server)
    assert (opened[1].statuses, opened[1].ended) == ([200], "closed")


async def test_behind_an_event_in_doubt_nothing_is_taken(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request(OURS), request(), b"garbage\r\n\r\n")
    (in_doubt,) = server.admitter.requests
    in_doubt.refused(SpoolInDoubt("a sync failed"))
    assert (opened[1].is_half_closed, opened[1].ended) == (True, "")
    await publish(keys, KEY)
    assert (len(server.admitter.requests), opened[1].written, server.limits.used_bytes) == (1, b"", 0)


async def test_refused_input_behind_it_is_answered_behind_it(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request(), b"garbage\r\n\r\n")
    assert opened[1].written == b""
    await publish(keys, KEY)
    admit(server)
    assert (opened[1].statuses, opened[1].is_half_closed, server.limits.used_bytes) == ([200, 400], True, 0)


async def test_no_time_limit_of_the_client_counts_while_it_waits(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request())
    opened[0].expire(asyncio.get_running_loop().time() + REQUEST_TIMEOUT_S + KEEP_ALIVE_S)
    assert opened[1].ended == ""
    await publish(keys, KEY)
    admit(server)
    assert opened[1].statuses == [200]


@pytest.mark.parametrize("more", [b"", request()[:-5]], ids=["alone", "with half a request"])
async def test_at_the_end_a_request_that_waits_is_finished(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys, more: bytes
) -> None:
    await wait_on(opened, request(), *filter(None, [more]))
    opened[0].shutdown()
    assert opened[1].ended == ""
    await wait_on(opened, *filter(None, [request()[-5:] if more else b""]))
    await publish(keys, KEY)
    admit(server)
    expected = [200, 200] if more else [200]
    assert (opened[1].statuses, opened[1].ended, server.limits.used_bytes) == (expected, "closed", 0)
    assert opened[1].written.count(b"connection: close") == 1


async def test_at_the_end_a_request_that_waits_in_vain_is_told_so(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request())
    opened[0].shutdown()
    await stay_silent(keys)
    assert (opened[1].statuses, opened[1].ended, server.limits.used_bytes) == ([503], "closed", 0)


async def test_if_the_end_is_due_a_request_that_waits_is_told_to_come_again(
    server: Server, opened: tuple[Connection, FakeTransport], keys: LateKeys
) -> None:
    await wait_on(opened, request(), request())
    opened[0].shutdown()
    opened[0].stop_waiting()
    assert (opened[1].statuses, opened[1].ended, server.limits.used_bytes) == ([503, 503], "closed", 0)
    await publish(keys, KEY)
    assert server.admitter.requests == []


# Who can be refused at once


@pytest.mark.parametrize(("kind", "value"), [(Kind.ADDRESS, "192.0.2.0/24"), (Kind.DEVICE, "3f0a")])
@pytest.mark.parametrize("number", range(5))
async def test_whoever_is_shut_out_need_not_wait(
    tmp_path: Path, keys: LateKeys, kind: Kind, value: str, number: int
) -> None:
    files = Files(tmp_path / "spool.db", tmp_path / "spool.db.denials")
    files.write(denial(kind, value))
    server = serve(keys, denials=files.denials)
    opened = server.connect()
    head, end, _ = in_each_way(THEIRS)[number].partition(b"\r\n\r\n")
    await wait_on(opened, head + b"\r\nDevice-UUID: 3f0a\r\nExpect: 100-continue" + end)
    assert (opened[1].statuses, keys.waiting) == ([403], 0)


async def test_a_page_that_may_not_send_need_not_wait(opened: tuple[Connection, FakeTransport], keys: LateKeys) -> None:
    for sent in in_each_way(THEIRS):
        await wait_on(opened, sent.replace(b"\r\n", b"\r\nOrigin: https://other.example\r\n", 1))
    assert (opened[1].statuses, keys.waiting) == ([403] * 5, 0)


# Cycles


@pytest.mark.parametrize(
    ("sent", "end", "status"),
    [
        pytest.param(request(THEIRS), publish_it, 200, id="the key arrives"),
        pytest.param(request(FORGED), publish_it, 401, id="another key arrives"),
        pytest.param(request(THEIRS), publish_none, 401, id="no key arrives"),
        pytest.param(request(THEIRS), stay_silent, 503, id="the provider is silent"),
        *(pytest.param(beacon, stay_silent, 503, id=f"beacon {n}") for n, beacon in enumerate(beacons(THEIRS))),
    ],
)
async def test_a_request_that_waited_leaves_nothing_for_the_collector_of_cycles(
    sent: bytes, end: End, status: int
) -> None:
    for is_first in (True, False):
        keys = LateKeys()
        server = serve(keys)
        opened = server.connect()
        gc.collect()
        gc.disable()
        try:
            await wait_on(opened, sent)
            await end(keys)
            admit(server)
            assert is_first or gc.collect() == 0
        finally:
            gc.enable()
        assert opened[1].statuses == [status]


@pytest.mark.parametrize(
    ("sent", "settings", "status"),
    [
        pytest.param(request(OURS, Origin="https://other.example"), {}, 403, id="a page that may not send"),
        pytest.param(request(OURS), {"token_rate_per_s": 0.001, "rate_burst_s": 1}, 429, id="over the limit"),
        pytest.param(request(NOT_OURS), {}, 401, id="a wrong signature"),
        pytest.param(request(EXPIRED), {}, 401, id="a token that has expired"),
        pytest.param(request("x"), {}, 401, id="no token"),
        *(pytest.param(beacon, {}, 401, id="beacon") for beacon in beacons(NOT_OURS)),
        pytest.param(request(None, "x=y", Content_Type=FORM), {}, 400, id="a form without events"),
        pytest.param(request(LIMITED), {}, 403, id="a token of other pages"),
    ],
)
async def test_a_refused_sender_leaves_nothing_for_the_collector_of_cycles(
    sent: bytes, settings: dict[str, Any], status: int
) -> None:
    server = Server(origins=[SHOP], **settings)
    connection, transport = server.connect()
    # In pieces too: such a request is judged by its head alone.
    for piece in (sent, sent, sent[:-1], sent[-1:]):
        connection.data_received(piece)
    admit(server)
    gc.collect()
    gc.disable()
    try:
        for piece in (sent, sent[:-1], sent[-1:]):
            connection.data_received(piece)
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert transport.statuses[-2:] == [status] * 2
