"""Tokens, over real connections: rights to send and to read, and no secret in the log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from forebay.tokens.provider import LEEWAY_S
from testbed.servers.forebay import SECRET
from testbed.traffic.requests import EVENT, Client, assert_created, assert_problem
from testbed.traffic.wire import TIMEOUT_S


def forge(header: bytes, secret: bytes, **claims: Any) -> str:
    """Return a token that no library would make."""
    payload = json.dumps({"sub": "mallory", "exp": int(time.time()) + 3600} | claims).encode()
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest() if secret else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def sign_by_rs256() -> str:
    payload = json.dumps({"sub": "mallory", "exp": int(time.time()) + 3600}).encode()
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"RS256"}', payload))
    signature = rsa.generate_private_key(65537, 2048).sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return b".".join([signed, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def confuse_with_public_key() -> str:
    key = rsa.generate_private_key(65537, 2048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return forge(b'{"alg":"HS256"}', pem)


HS256 = b'{"alg":"HS256","typ":"JWT"}'
BAD_TOKENS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "no token": lambda: "nonsense",
    "three dots": lambda: "a.b.c",
    "not ASCII": lambda: "日本.日本.日本",
    "wrong signature": lambda: forge(HS256, b"another key, which is long enough too"),
    "no signature": lambda: forge(HS256, b""),
    "expired": lambda: forge(HS256, SECRET.encode(), exp=int(time.time()) - LEEWAY_S - 1),
    "not yet valid": lambda: forge(HS256, SECRET.encode(), nbf=int(time.time()) + 3600),
    "alg none": lambda: forge(b'{"alg":"none"}', b""),
    "alg none, signed": lambda: forge(b'{"alg":"none"}', SECRET.encode()),
    "alg HS512": lambda: jwt.encode({"sub": "a", "exp": int(time.time()) + 3600}, SECRET * 2, "HS512"),
    "alg HS512 by name only": lambda: forge(b'{"alg":"HS512"}', SECRET.encode()),
    "alg RS256": sign_by_rs256,
    "alg RS256 by name only": lambda: forge(b'{"alg":"RS256"}', SECRET.encode()),
    "signed with a public key": confuse_with_public_key,
    "no alg": lambda: forge(b"{}", SECRET.encode()),
    "no exp": lambda: forge(HS256, SECRET.encode(), exp=None),
    "exp no time": lambda: forge(HS256, SECRET.encode(), exp="later"),
    "exp beyond all numbers": lambda: forge(HS256, SECRET.encode(), exp=10**400),
    "no sub": lambda: forge(HS256, SECRET.encode(), sub=None),
    "empty sub": lambda: forge(HS256, SECRET.encode(), sub=""),
    "sub no text": lambda: forge(HS256, SECRET.encode(), sub=5),
    "sub that fits into no document": lambda: forge(HS256, SECRET.encode(), sub="\ud83d"),
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_token_that_is_not_valid_is_refused(client: Client, token: Callable[[], str]) -> None:
    for path in ("/events", "/events/batch"):
        answer = client.post(path, Authorization=f"Bearer {token()}")
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')


def test_a_request_without_a_token_is_refused(client: Client) -> None:
    for path in ("/events", "/events/batch"):
        answer = client.post(path, Authorization=None)
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic dXNlcjpwYXNz", "Token x", "bearer: x"])
def test_an_authorization_of_another_kind_is_refused(client: Client, authorization: str) -> None:
    assert_problem(client.post(Authorization=authorization), 401)


def test_a_token_that_expires_is_refused_from_then_on(client: Client) -> None:
    token = f"Bearer {client.server.token(lifetime_s=2 - LEEWAY_S)}"
    assert_created(client.post(Authorization=token))
    deadline = time.monotonic() + TIMEOUT_S
    while client.post(Authorization=token).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert_problem(client.post(Authorization=token), 401)


@pytest.mark.parametrize("scope", ["events:read", "admin", "events:read admin", "", "events:writer"])
def test_a_token_without_the_scope_cannot_send(client: Client, scope: str) -> None:
    answer = client.post(Authorization=f"Bearer {client.server.token(scope=scope)}")
    assert_problem(answer, 403)
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="events:write"'


def test_a_token_with_the_scope_among_others_can_send(client: Client) -> None:
    assert_created(client.post(Authorization=f"Bearer {client.server.token(scope='admin events:write')}"))


def test_the_sub_of_the_token_is_the_user(client: Client) -> None:
    name = '日本 " 😀'
    answer = client.post(Authorization=f"Bearer {client.server.token(sub=name)}")
    assert client.document(assert_created(answer))["user_id"] == name


def test_a_token_that_can_only_send_sees_nothing_of_the_server(client: Client) -> None:
    assert_problem(client.get("/metrics"), 401)
    assert_problem(client.get("/metrics", client.bearer), 403)
    assert client.get("/health/ready", client.bearer).json == {"status": "ready"}


@pytest.mark.parametrize("scope", ["events:read", "admin"])
def test_a_token_that_can_read_sees_the_metrics(client: Client, scope: str) -> None:
    answer = client.get("/metrics", f"Bearer {client.server.token(scope=scope)}")
    assert answer.status == 200
    assert b"\nforebay_events_accepted_total " in answer.body


def test_open_metrics_ask_for_no_token(other: Client) -> None:
    assert other.get("/metrics").status == 200
    assert_problem(other.post(Authorization=None), 401)


def test_metrics_count_the_answers_to_clients(client: Client) -> None:
    def counts() -> list[float]:
        body = client.get("/metrics", f"Bearer {client.server.token(scope='admin')}").body.decode()
        samples = dict(line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#"))
        names = ("events_accepted_total", "events_rejected_total", 'requests_total{status="400"}')
        return [float(samples[f"forebay_{name}"]) for name in names]

    client.post(body=b"")
    before = counts()
    client.post()
    client.post("/events/batch", b"[" + EVENT + b"," + EVENT + b",1]")
    client.post(body=b"{}")
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [3, 2, 1]


@pytest.mark.parametrize("name", ["client", "hasty", "other"])
def test_no_secret_no_token_and_no_fault_is_in_the_log(name: str, request: pytest.FixtureRequest) -> None:
    client: Client = request.getfixturevalue(name)
    client.post()
    client.post(Authorization=f"{client.bearer}x")
    log = client.server.log
    assert SECRET not in log
    assert client.bearer.rpartition(".")[2] not in log
    assert "eyJ" not in log
    assert "Traceback" not in log
    assert "exception" not in log
