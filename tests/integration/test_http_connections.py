"""Connections and HTTP itself: kept and closed, chunked and cut off, garbage and upgrades."""

from __future__ import annotations

import socket

import pytest

from testbed.servers.doors import BODY_BYTES_MAX
from testbed.traffic.requests import EVENT, H2C, LIVE, PING, Client, assert_created, assert_problem, chunked, event


def test_a_connection_is_kept_for_the_next_request(client: Client) -> None:
    with client.wire() as wire:
        for number in range(50):
            log_id = f"kept {number}"
            answer = wire.ask(client.request(body=event(log_id=log_id)))
            assert_created(answer, log_id)
            assert "connection" not in answer.headers
        assert_problem(wire.ask(client.request(body=b"{}")), 400, "event", "page")
        assert wire.ask(LIVE).json == {"status": "alive"}
        assert wire.ask(PING).body == b"pong"


@pytest.mark.parametrize(
    ("version", "connection"), [("1.1", "close"), ("1.1", "Close"), ("1.0", None), ("1.0", "close")]
)
def test_a_connection_is_closed_if_the_client_wants_it(client: Client, version: str, connection: str | None) -> None:
    for request, status in (
        (client.request(headers={"Connection": connection}, version=version), 200),
        (client.request(body=b"{}", headers={"Connection": connection}, version=version), 400),
        (client.request("/ping", None, {"Connection": connection}, "GET", version), 200),
        (client.request("/health/live", None, {"Connection": connection}, "GET", version), 200),
    ):
        with client.wire() as wire:
            answer = wire.ask(request)
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            wire.assert_closed()


def test_a_client_of_http_1_0_may_keep_its_connection(client: Client) -> None:
    with client.wire() as wire:
        for _ in range(3):
            for request, status in (
                (client.request(headers={"Connection": "keep-alive"}, version="1.0"), 200),
                (client.request(body=b"{}", headers={"Connection": "Keep-Alive"}, version="1.0"), 400),
                (client.request("/ping", None, {"Connection": "keep-alive"}, "GET", "1.0"), 200),
            ):
                answer = wire.ask(request)
                assert (answer.status, answer.headers["connection"]) == (status, "keep-alive")
        answer = wire.ask(client.request("/ping", None, {"Connection": "keep-alive"}, "GET"))
        assert "connection" not in answer.headers
        # uvicorn keeps none for the ASGI application.
        answer = wire.ask(client.request("/health/live", None, {"Connection": "keep-alive"}, "GET", "1.0"))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        wire.assert_closed()


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_chunked_body_is_put_together(client: Client, size: int) -> None:
    headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    with client.wire() as wire:
        for number in range(2):
            log_id = f"chunked {size} {number}"
            head = client.request(body=b"", headers=headers)
            assert_created(wire.ask(head + chunked(event(log_id=log_id), size)), log_id)


def test_a_request_may_arrive_byte_by_byte(client: Client) -> None:
    with client.wire() as wire:
        for byte in client.request(body=event(log_id="byte by byte", param={"k": "日本"})):
            wire.send(bytes([byte]))
        assert_created(wire.answer(), "byte by byte")
    assert client.document("byte by byte")["event_info"]["param"] == {"k": "日本"}


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(client: Client) -> None:
    with client.wire() as wire:
        for _ in range(2):
            wire.send(client.request(body=b"", headers={"Content-Length": str(len(EVENT)), "Expect": "100-continue"}))
            assert wire.answer() == (100, {}, b"")
            assert_created(wire.ask(EVENT))


def test_a_client_that_asks_before_it_sends_too_much_is_refused(client: Client) -> None:
    with client.wire() as wire:
        headers = {"Content-Length": str(BODY_BYTES_MAX + 1), "Expect": "100-continue"}
        assert_problem(wire.ask(client.request(body=b"", headers=headers)), 413)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Authorization": "Bearer x"}, 401), ({"Authorization": None}, 401), ({"Content-Type": "text/html"}, 415)],
)
def test_a_client_that_asks_before_it_sends_is_refused_at_once(
    client: Client, headers: dict[str, str | None], status: int
) -> None:
    with client.wire() as wire:
        asking = {"Content-Length": "1000", "Expect": "100-continue"} | headers
        answer = wire.ask(client.request(body=b"", headers=asking))
        assert_problem(answer, status)
        assert answer.headers["connection"] == "close"
        wire.assert_closed()


def test_a_client_of_http_1_0_is_never_told_to_go_on(client: Client) -> None:
    with client.wire() as wire:
        assert_created(wire.ask(client.request(headers={"Expect": "100-continue"}, version="1.0")))


def test_a_client_that_will_send_no_more_still_gets_its_answer(client: Client) -> None:
    for request in (client.request(body=event(log_id="half")), PING + LIVE + client.request()):
        with client.wire() as wire:
            wire.send(request)
            wire.socket.shutdown(socket.SHUT_WR)
            for _ in range(request.count(b" HTTP/1.1")):
                assert wire.answer().status == 200
            wire.assert_closed()


def test_a_client_that_goes_away_in_the_middle_of_a_request_leaves_nothing(client: Client) -> None:
    for end in (1, 20, -1):
        with client.wire() as wire:
            wire.send(client.request(body=event(log_id=f"cut off at {end}"))[:end])
    assert_created(client.post(body=event(log_id="after all that")))
    client.document("after all that")
    assert client.stored("log_id LIKE 'cut off%'") == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /ping HTTP\r\n\r\n",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"FETCH /ping HTTP/1.1\r\n\r\n",
        b"GET /p\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"POST /events HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /events HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_input_that_is_not_http_is_refused_and_the_connection_closed(client: Client, garbage: bytes) -> None:
    with client.wire() as wire:
        answer = wire.ask(garbage)
        assert_problem(answer, 400)
        assert answer.headers["connection"] == "close"
        wire.assert_closed()


def test_a_body_that_stops_being_http_is_refused_once(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=b"", headers={"Content-Length": None, "Transfer-Encoding": "chunked"}))
        wire.send(b"5\r\nabcde\r\n")
        assert_problem(wire.ask(b"no size\r\n"), 400)
        wire.assert_closed()


# Requests that ask for another protocol, as Java's HttpClient does by itself


def test_a_client_that_would_like_http_2_is_answered_in_http_1(client: Client) -> None:
    with client.wire() as wire:
        for number in range(3):
            log_id = f"upgrade {number}"
            assert_created(wire.ask(client.request(body=event(log_id=log_id), headers=H2C)), log_id)
            assert wire.ask(client.request("/ping", None, H2C, "GET")).body == b"pong"
            assert wire.ask(client.request("/health/live", None, H2C, "GET")).json == {"status": "alive"}
            assert_created(wire.ask(client.request()))


def test_requests_that_ask_for_another_protocol_may_come_in_any_pieces(client: Client) -> None:
    headers = {**H2C, "Content-Length": None, "Transfer-Encoding": "chunked"}
    request = client.request(body=event(log_id="upgrade a"), headers=H2C)
    request += client.request(body=b"", headers=headers) + chunked(event(log_id="upgrade b")) + PING
    for size in (1, 100, len(request)):
        with client.wire() as wire:
            for start in range(0, len(request), size):
                wire.send(request[start : start + size])
            assert_created(wire.answer(), "upgrade a")
            assert_created(wire.answer(), "upgrade b")
            assert wire.answer().body == b"pong"


def test_a_request_for_another_protocol_is_still_checked(client: Client) -> None:
    with client.wire() as wire:
        assert_problem(wire.ask(client.request(headers={**H2C, "Authorization": None})), 401)
        assert_problem(wire.ask(client.request("/nothing", None, H2C, "GET")), 404)
        assert_created(wire.ask(client.request(headers={**H2C, "Connection": "upgrade, close"})))
        wire.assert_closed()


def test_no_tunnel_is_offered(client: Client) -> None:
    with client.wire() as wire:
        assert_problem(wire.ask(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n"), 501)
        wire.assert_closed()
