"""The addresses, over real connections: how they may be written, their methods, their queries."""

from __future__ import annotations

import pytest

from testbed.traffic.requests import EVENT, PING, Client, assert_created, assert_problem, event


@pytest.mark.parametrize("target", ["/ping", "/ping?x=1", "/p%69ng", "http://forebay/ping", "http://forebay:1/ping?x"])
def test_ping_is_answered_without_a_token(client: Client, target: str) -> None:
    answer = client.get(target)
    assert (answer.status, answer.body) == (200, b"pong")
    assert answer.headers["date"].endswith(" GMT")


def test_ping_by_head_has_no_body_and_leaves_the_connection_open(client: Client) -> None:
    with client.wire() as wire:
        for _ in range(3):
            wire.send(PING.replace(b"GET", b"HEAD"))
            answer = wire.answer(to_head=True)
            assert (answer.status, answer.headers["content-length"]) == (200, "4")
        assert wire.ask(PING).body == b"pong"


# Addresses and methods


@pytest.mark.parametrize("path", ["/", "/event", "/events/", "/events/batch/", "/events//batch", "/EVENTS", "//events"])
def test_only_a_client_with_a_token_is_told_that_an_address_is_unknown(client: Client, path: str) -> None:
    assert_problem(client.get(path, client.bearer), 404)
    answer = client.get(path)
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_an_event_address_names_its_method(client: Client, path: str, method: str) -> None:
    answer = client.get(path, client.bearer, method)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"
    assert_problem(client.get(path, None, method), 401)


def test_ping_names_its_methods(client: Client) -> None:
    answer = client.get("/ping", None, "DELETE")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "target", ["http://forebay/events", "http://user@[::1]:80/events?x=1", "/%65vents", "/events?"]
)
def test_an_address_may_be_written_in_many_ways(client: Client, target: str) -> None:
    assert_created(client.post(target))


@pytest.mark.parametrize("target", ["http://forebay", "http://", "http://forebay:99999/ping", "http://[/ping", "ping"])
def test_an_invalid_address_is_refused(client: Client, target: str) -> None:
    with client.wire() as wire:
        wire.send(client.request(target, None, method="GET"))
        assert_problem(wire.answer(), 400)
        wire.assert_closed()


# Acknowledgement


@pytest.mark.parametrize("query", ["ack=memory", "ack=disk", "ack=", "x=1", "ack=disk&ack=memory", "ack=mem%6Fry"])
def test_a_request_may_choose_its_acknowledgement(client: Client, query: str) -> None:
    log_id = f"query {query}"
    assert_created(client.post(f"/events?{query}", event(log_id=log_id)), log_id)
    assert client.post(f"/events/batch?{query}", b"[" + EVENT + b"]").json["accepted"] == 1
    client.document(log_id)


@pytest.mark.parametrize("query", ["ack=nonsense", "ack=MEMORY", "ack=memory&ack=tape", "ack=%ff"])
def test_an_unknown_acknowledgement_is_refused(client: Client, query: str) -> None:
    assert_problem(client.post(f"/events?{query}"), 400, "ack")


def test_acknowledgement_from_memory_can_be_the_default(other: Client) -> None:
    assert_created(other.post(body=event(log_id="from memory")), "from memory")
    assert_created(other.post("/events?ack=disk", event(log_id="from disk")), "from disk")
    other.documents(["from memory", "from disk"])
