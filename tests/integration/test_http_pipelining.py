"""Requests that are sent before earlier ones are answered, over real connections."""

from __future__ import annotations

import json
import socket

import pytest

from testbed.servers.doors import BODY_BYTES_MAX
from testbed.traffic.requests import EVENT, LIVE, PING, Client, assert_created, assert_problem, chunked, event


def test_requests_in_one_packet_are_answered_in_their_order(client: Client) -> None:
    with client.wire() as wire:
        wire.send(
            client.request(body=event(log_id="first"))
            + PING
            + LIVE
            + client.request(body=event(log_id="second"))
            + client.request(body=b"{}")
            + client.request("/nothing", EVENT)
            + PING.replace(b"GET", b"DELETE")
            + client.request("/events/batch", b"[" + event(log_id="third") + b"]")
            + LIVE
            + client.request("/events?ack=memory", event(log_id="fourth"))
            + client.request(body=b"", headers={"Content-Length": None, "Transfer-Encoding": "chunked"})
            + chunked(event(log_id="fifth"))
            + PING
        )
        assert_created(wire.answer(), "first")
        assert wire.answer().body == b"pong"
        assert wire.answer().json == {"status": "alive"}
        assert_created(wire.answer(), "second")
        assert_problem(wire.answer(), 400, "event", "page")
        assert_problem(wire.answer(), 404)
        assert_problem(wire.answer(), 405)
        assert wire.answer().json["results"][0]["log_id"] == "third"
        assert wire.answer().json == {"status": "alive"}
        assert_created(wire.answer(), "fourth")
        assert_created(wire.answer(), "fifth")
        assert wire.answer().body == b"pong"
        assert wire.is_silent


def test_a_length_with_thousands_of_zeros_costs_no_request_its_answer(client: Client) -> None:
    long = event(log_id="with zeros")
    with client.wire() as wire:
        wire.send(client.request(body=event(log_id="before the zeros")))
        wire.send(client.request(body=long, headers={"Content-Length": str(len(long)).zfill(5_000)}))
        assert_created(wire.answer(), "before the zeros")
        assert_created(wire.answer(), "with zeros")
        assert_created(wire.ask(client.request()))


def test_blanks_behind_a_header_are_no_part_of_it(client: Client) -> None:
    with client.wire() as wire:
        headers = {"device-uuid": "a device \t", "User-Agent": "an agent\t"}
        assert_created(wire.ask(client.request(body=event(log_id="blanks"), headers=headers)))
    (document,) = client.documents(["blanks"])
    assert (document["device_uuid"], document["user_agent"]) == ("a device", "an agent")


def test_thousands_of_pings_behind_an_event_are_all_answered(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=event(log_id="before the pings")) + PING * 5_000)
        assert_created(wire.answer(), "before the pings")
        for _ in range(5_000):
            assert wire.answer().body == b"pong"
        assert_created(wire.ask(client.request()))


def test_a_thousand_events_in_one_packet_are_answered_in_their_order(client: Client) -> None:
    log_ids = [f"packed {number}" for number in range(1_000)]
    with client.wire() as wire:
        wire.send(b"".join(client.request(body=event(log_id=log_id)) for log_id in log_ids))
        for log_id in log_ids:
            assert_created(wire.answer(), log_id)
    client.documents(log_ids)


def test_events_that_are_committed_together_are_answered_in_their_order(client: Client) -> None:
    requests, wanted = [], []
    for number in range(600):
        log_id = f"together {number}"
        if number % 7 == 3:
            requests.append(client.request(body=event(log_id=log_id, label=5)))
        elif number % 7 == 5:
            requests.append(client.request(headers={"Authorization": None}))
        else:
            path = "/events?ack=memory" if number % 3 else "/events"
            requests.append(client.request(path, event(log_id=log_id)))
            wanted.append(log_id)
    with client.wire() as wire:
        wire.send(b"".join(requests))
        taken = []
        for number in range(600):
            answer = wire.answer()
            if number % 7 == 3:
                assert_problem(answer, 400, "label")
            elif number % 7 == 5:
                assert_problem(answer, 401)
            else:
                taken.append(assert_created(answer))
        assert taken == wanted
        assert wire.is_silent
    client.documents(wanted)
    assert (
        client.stored(
            "log_id LIKE 'together %' AND log_id NOT IN (SELECT value FROM json_each(?))", [json.dumps(wanted)]
        )
        == []
    )


def test_a_body_that_is_still_on_its_way_is_waited_for_behind_other_requests(client: Client) -> None:
    with client.wire() as wire:
        request = client.request(body=event(log_id="the slow one", param="x" * 200_000))
        wire.send(client.request(body=event(log_id="the quick one")) + PING + request[:500])
        assert_created(wire.answer(), "the quick one")
        assert wire.answer().body == b"pong"
        wire.send(request[500:] + PING)
        assert_created(wire.answer(), "the slow one")
        assert wire.answer().body == b"pong"


def test_a_body_over_the_limit_behind_an_event_is_refused_behind_it(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=event(log_id="small")) + client.request(body=b" " * (BODY_BYTES_MAX + 1)))
        assert_created(wire.answer(), "small")
        assert_problem(wire.answer(), 413)
        wire.assert_closed()


@pytest.mark.parametrize(
    ("behind", "status"),
    [
        pytest.param(b"garbage\r\n\r\n", 400, id="garbage"),
        pytest.param(PING.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), 431, id="a large head"),
        pytest.param(b"GET http://x HTTP/1.1\r\n\r\n", 400, id="no address"),
        pytest.param(b"CONNECT x:1 HTTP/1.1\r\n\r\n", 501, id="a tunnel"),
        pytest.param(PING.replace(b"\r\n\r\n", b"\r\nX: y" * 200 + b"\r\n\r\n"), 431, id="many lines"),
    ],
)
def test_input_that_is_refused_takes_nothing_from_the_event_before_it(
    client: Client, behind: bytes, status: int
) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=event(log_id="before it")) + LIVE + behind + PING)
        assert_created(wire.answer(), "before it")
        assert wire.answer().json == {"status": "alive"}
        assert_problem(wire.answer(), status)
        wire.assert_closed()


def test_a_client_that_sends_no_more_behind_refused_input_still_gets_both_answers(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=event(log_id="before garbage")) + b"garbage\r\n\r\n")
        wire.socket.shutdown(socket.SHUT_WR)
        assert_created(wire.answer(), "before garbage")
        assert_problem(wire.answer(), 400)
        wire.assert_closed()


@pytest.mark.parametrize("behind", [PING, b"garbage\r\n\r\n"])
def test_nothing_is_answered_behind_the_request_that_closes(client: Client, behind: bytes) -> None:
    for last in (client.request(headers={"Connection": "close"}), PING.replace(b"Host", b"Connection: close\r\nHost")):
        with client.wire() as wire:
            wire.send(PING + last + behind)
            assert wire.answer().body == b"pong"
            assert wire.answer().status == 200
            wire.assert_closed()
