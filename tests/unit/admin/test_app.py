"""Health, metrics, the description, and the answer at an unknown address; a token decides who may read."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from forebay.admin.app import AdminApp, Collect
from forebay.admin.schemas import Json
from forebay.admin.snapshot import ServerSnapshot, Snapshot
from forebay.description import describe_server
from forebay.errors import Rejection
from forebay.intake.formats.registry import list_addresses
from forebay.pipeline.gate import Health
from forebay.pipeline.pipeline import State
from forebay.telemetry.counters import Counters
from forebay.tokens.claims import OPERATOR_SCOPES

WELL = State(
    channel_events=0,
    channel_bytes=0,
    stored_events=0,
    stored_bytes=0,
    pending_events=0,
    sink_health=Health.GOOD,
    sink_cause="",
    spool_failure="",
    spool_full=False,
)
DEGRADED = WELL._replace(sink_health=Health.FAILED, sink_cause="refused")
UNREADY = WELL._replace(spool_failure="the disk is full")
METHODS = {"/ping": ("GET", "HEAD"), "/events": ("POST",)}
WRITER, READER = b"writer", b"reader"


class Verifier:
    """Knows two tokens: one that may send, and one that may read."""

    def verify(self, authorization: bytes | None, *scopes: str, is_last_try: bool) -> object:
        assert is_last_try  # it does not wait for the keys of a provider
        if authorization not in (WRITER, READER):
            raise Rejection(401, "who are you?", headers=(("WWW-Authenticate", "Bearer"),))
        if scopes and (authorization == WRITER or tuple(scopes) != OPERATOR_SCOPES):
            raise Rejection(403, "not you", headers=(("WWW-Authenticate", "Bearer"),))
        return authorization


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Fault(Exception):
    """A fault of our own, which the server that calls the application logs."""


def as_collected(state: State) -> Collect:
    async def collect() -> ServerSnapshot:
        return ServerSnapshot(1, {1: Snapshot(1, Counters(accepted=7), state, {}, stopping=False)})

    return collect


WELL_COLLECTED = as_collected(WELL)


def describe() -> Json:
    return describe_server(list_addresses(), metrics_open=False)


async def call(
    path: str,
    method: str = "GET",
    token: bytes | None = None,
    *,
    collect: Collect = WELL_COLLECTED,
    metrics_open: bool = False,
    headers: Sequence[tuple[bytes, bytes]] = ((b"host", b"forebay"),),
    query: bytes = b"",
    verifier: Verifier | None = None,
) -> Answer:
    """Send one request through the application."""
    app = AdminApp(verifier or Verifier(), collect, METHODS, describe, metrics_open=metrics_open).build()
    sent = [*headers, *([(b"authorization", token)] if token else [])]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 3000),
        "client": ("127.0.0.1", 5),
        "headers": sent,
    }
    messages: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("no body is of interest")

    async def send(message: Any) -> None:
        messages.append(message)

    with contextlib.suppress(Fault):
        await app(scope, receive, send)
    start, *bodies = messages
    received = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], received, b"".join(body.get("body", b"") for body in bodies))


def assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json.keys() == {"type", "title", "status", "detail"}
    assert answer.json["status"] == status


async def test_everybody_may_ask_whether_the_process_lives() -> None:
    answer = await call("/health/live")
    assert (answer.status, answer.json) == (200, {"status": "alive"})


@pytest.mark.parametrize("token", [None, WRITER, b"nonsense"])
async def test_readiness_is_public_and_its_causes_are_not(token: bytes | None) -> None:
    for state, code, status in ((DEGRADED, 200, "degraded"), (UNREADY, 503, "unready")):
        answer = await call("/health/ready", token=token, collect=as_collected(state))
        assert (answer.status, answer.json) == (code, {"status": status})


async def test_a_reader_sees_the_causes() -> None:
    answer = await call("/health/ready", token=READER, collect=as_collected(UNREADY))
    assert (answer.status, answer.json) == (503, {"status": "unready", "causes": ["the disk is full"]})


async def test_without_a_cause_none_is_shown() -> None:
    assert (await call("/health/ready", token=READER)).json == {"status": "ready"}


async def test_metrics_are_for_readers() -> None:
    assert_problem(await call("/metrics"), 401)
    assert_problem(await call("/metrics", token=WRITER), 403)
    answer = await call("/metrics", token=READER)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"forebay_events_accepted_total 7.0" in answer.body


async def test_open_metrics_are_for_everybody() -> None:
    assert (await call("/metrics", metrics_open=True)).status == 200


@pytest.mark.parametrize("path", ["/", "/nothing", "/events/", "/health", "/health/live/", "/metrics/x", "*", "//"])
async def test_only_a_client_with_a_token_is_told_that_an_address_is_unknown(path: str) -> None:
    answer = await call(path)
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert_problem(await call(path, token=WRITER), 404)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_an_event_address_names_its_methods(method: str) -> None:
    assert_problem(await call("/events", method), 401)
    answer = await call("/events", method, WRITER)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"
    assert method in answer.json["detail"]


async def test_ping_names_its_methods_without_a_token() -> None:
    answer = await call("/ping", "POST")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_an_address_of_the_application_names_its_methods(path: str) -> None:
    answer = await call(path, "POST")
    assert_problem(answer, 405)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("host", [b"forebay/ping?", b"forebay/ping#", b"[", b"]:99999", b"\xff", b""])
async def test_a_strange_host_evades_no_check(host: bytes) -> None:
    assert_problem(await call("/nothing", headers=[(b"host", host)]), 401)
    assert_problem(await call("/nothing", token=WRITER, headers=[(b"host", host)]), 404)
    assert_problem(await call("/health/live", "POST", headers=[(b"host", host)]), 405)


async def test_a_fault_of_our_own_is_not_explained() -> None:
    async def fail() -> ServerSnapshot:
        raise Fault("the password is hunter2")

    answer = await call("/health/ready", collect=fail)
    assert_problem(answer, 500)
    assert b"hunter2" not in answer.body


# The description of the interface


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_anybody_with_a_token_may_read_the_description(path: str) -> None:
    for token in (WRITER, READER):
        answer = await call(path, token=token)
        assert answer.status == 200
        assert b"/events/batch" in answer.body
        assert answer.headers["cache-control"] == "no-store"
    assert_problem(await call(path), 401)
    assert_problem(await call(path, token=b"mallory"), 401)
    assert_problem(await call(path, "POST", WRITER), 405)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_a_browser_may_have_the_token_in_the_address_of_the_description(path: str) -> None:
    seen: list[bytes | None] = []

    class Recorder(Verifier):
        def verify(self, authorization: bytes | None, *scopes: str, is_last_try: bool) -> object:
            seen.append(authorization)
            return super().verify(WRITER, *scopes, is_last_try=is_last_try)

    answer = await call(path, query=b"x=1&access_token=abc", verifier=Recorder())
    assert answer.status == 200
    assert b"abc" not in answer.body
    # The header is the better place, so it counts.
    await call(path, token=READER, query=b"access_token=abc", verifier=Recorder())
    assert seen == [b"Bearer abc", READER]


async def test_nothing_else_takes_a_token_in_the_address() -> None:
    for path in ("/metrics", "/nothing"):
        assert_problem(await call(path, query=b"access_token=writer"), 401)


async def test_the_page_may_do_nothing_but_run_its_own_script() -> None:
    answer = await call("/docs", token=WRITER)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    for element in ("style", "script"):
        (text,) = re.findall(f"<{element}>(.*?)</{element}>", answer.body.decode(), flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{element}-src"] == f"'sha256-{digest}'"
    assert answer.headers["referrer-policy"] == "no-referrer"
