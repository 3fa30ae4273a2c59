"""The token that stands in the base address of UBI's collector is in no answer, no log, no metric and no document."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from forebay.tokens.claims import Scope
from testbed.servers.forebay import ForebayServer
from testbed.traffic.requests import Client, assert_problem
from testbed.traffic.ubi import Shop, make_event
from testbed.traffic.wire import Answer


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayServer]:
    """A server with the embedded store that logs all that it can."""
    settings = {"FOREBAY_LOG_LEVEL": "debug", "FOREBAY_METRICS_OPEN": "true", "FOREBAY_BULK_INTERVAL_S": "0.2"}
    with ForebayServer(tmp_path_factory.mktemp("server"), settings) as server:
        server.start()
        yield server


def secret_of(token: str) -> str:
    """Return the part of a token without which it is none."""
    return token.rpartition(".")[2]


def shown(answer: Answer) -> str:
    return f"{answer.headers} {answer.body!r}"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/ubi_events",
        "/ubi_queries",
        "/other",
        "",
        "/",
        "/ubi_events/",
        "/ubi_events/x",
        "/../ubi_events",
        "//ubi_events",
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_a_token_in_the_path_is_in_no_answer_and_no_log(
    quiet: ForebayServer, method: str, path: str, *, is_known: bool
) -> None:
    client, token = Client(quiet), quiet.token("shop")
    with client.wire() as wire:
        wire.send(
            client.request(f"/ubi/{token}{path}", None, {"Authorization": client.bearer if is_known else None}, method)
        )
        answer = wire.answer(to_head=method == "HEAD")
    is_address = path in ("/ubi_events", "/ubi_queries")
    if method == "POST" and is_address:
        assert answer.status == 400
    else:
        assert answer.status == (401 if not is_known else 405 if is_address else 404)
    assert secret_of(token) not in shown(answer)
    assert secret_of(token) not in quiet.log + quiet.output
    assert secret_of(token) not in client.get("/metrics").body.decode()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"5", {}, 400),
        (b"[{]", {}, 400),
        (b'[{"forebay":1}]', {}, 400),
        (b"[]", {"Content-Type": "text/html"}, 415),
        (b"[]", {"Content-Encoding": "lzma"}, 415),
        (b"[" + b" " * (3 * 1024 * 1024) + b"]", {}, 413),
    ],
)
def test_a_token_in_the_path_is_in_no_refusal(
    quiet: ForebayServer, body: bytes, headers: dict[str, str], status: int
) -> None:
    client, token = Client(quiet), quiet.token("shop")
    named: dict[str, str | None] = {"Authorization": None, **headers}
    with client.wire() as wire:
        answer = wire.ask(client.request(f"/ubi/{token}/ubi_events", body, named))
    assert_problem(answer, status, *(["forebay"] if b"forebay" in body else []))
    assert secret_of(token) not in shown(answer) + quiet.log + quiet.output


def test_a_wrong_token_in_the_path_is_in_no_refusal(quiet: ForebayServer) -> None:
    client = Client(quiet)
    for wrong in ("nonsense-in-the-path", quiet.token("x", Scope.READ) + "nonsense-in-the-path"):
        answer = client.post(f"/ubi/{wrong}/ubi_events", b"[{}]", Authorization=None)
        assert answer.status in (401, 403)
        assert "nonsense-in-the-path" not in shown(answer) + quiet.log + quiet.output


def test_a_head_that_is_too_long_does_not_show_its_token(quiet: ForebayServer) -> None:
    client = Client(quiet)
    with client.wire() as wire:
        wire.send(client.request(f"/ubi/{'secret' * 4_000}/ubi_events", b"[{}]", {"Authorization": None}))
        answer = wire.answer()
    assert answer.status == 431
    assert "secretsecret" not in shown(answer) + quiet.log + quiet.output


def test_nothing_of_the_token_is_stored(quiet: ForebayServer) -> None:
    shop = Shop(quiet)
    log_id = shop.track_event(make_event("click", "c1", "q1")).json["results"][0]["log_id"]
    document = Client(quiet).document(log_id)
    assert document["forebay"]["user_agent"].startswith("axios/")
    assert secret_of(shop.token) not in json.dumps(document)
