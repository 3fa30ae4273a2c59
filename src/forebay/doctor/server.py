"""What a running server says of itself, and its clock."""

from __future__ import annotations

import email.utils
import http.client
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from forebay.errors import ForebayError
from forebay.findings import Finding, Level
from forebay.settings import Settings, check_token_key
from forebay.tokens import Scope, make_token

WHAT = "server"
TIMEOUT_S = 5.0
TOKEN_S = 60
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, and where that is reached
HTTP_OK = 200
HTTP_UNAVAILABLE = 503


class ServerSilent(ForebayError):
    """No server answers at the address of the settings."""


class Reply(NamedTuple):
    """What the server answered, and the time of its Date line in milliseconds since 1970."""

    status: int
    body: bytes
    date_ms: int | None


def read_secret(settings: Settings) -> str | None:
    """Return the secret that the server has, or None if there is none that can be used; none is made here."""
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value()
    try:
        secret = settings.secret_path.read_text(encoding="ascii").strip()
        check_token_key(secret)
    except (OSError, ValueError):
        return None
    return secret


def look_at_server(settings: Settings) -> list[Finding]:
    """Ask the server whether it takes events, and what is wrong."""
    address = f"http://{_host(settings)}:{settings.server_port}"
    if not settings.server_port:
        return [Finding(Level.WARN, WHAT, "its port is not known: SERVER_PORT is 0", "give it a port of its own")]
    secret = read_secret(settings)
    try:
        reply = ask(settings, "/health/ready", None if secret is None else _make_token(secret))
    except ServerSilent as error:
        return [Finding(Level.WARN, WHAT, str(error), "start it, or see its log; clients get no answer")]
    return list(judge_readiness(address, reply))


def judge_readiness(address: str, reply: Reply) -> Iterator[Finding]:
    """Say what `/health/ready` says."""
    try:
        body: dict[str, Any] = msgspec.json.decode(reply.body, type=dict[str, Any])
        status = str(body["status"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        text = f"what answers at {address} is not Forebay (status {reply.status})"
        yield Finding(Level.FAIL, WHAT, text, "correct SERVER_PORT, or end what has taken the port")
        return
    if status == "ready":
        yield Finding(Level.OK, WHAT, f"takes events at {address}")
        return
    level = Level.FAIL if reply.status == HTTP_UNAVAILABLE else Level.WARN
    causes = body.get("causes") or ()
    for cause in causes:
        yield Finding(level, WHAT, f"{status}: {cause}", "see the lines about what it names, and the server's log")
    if not causes:
        advice = "run this with the JWT_SECRET that the server was started with"
        yield Finding(level, WHAT, f"{status}, and does not tell us why", advice)


def ask(settings: Settings, path: str, token: str | None = None) -> Reply:
    """Send a request to the server.

    Raises:
        ServerSilent: nobody answers.
    """
    host = _host(settings)
    connection = http.client.HTTPConnection(host, settings.server_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return Reply(response.status, response.read(), _read_date(response.getheader("Date")))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ServerSilent(f"no server answers at http://{host}:{settings.server_port}: {reason}") from error
    finally:
        connection.close()


def _host(settings: Settings) -> str:
    return ANYWHERE.get(settings.host, settings.host)


def _make_token(secret: str) -> str:
    return make_token(secret, "forebay-doctor", [Scope.READ], TOKEN_S)


def _read_date(text: str | None) -> int | None:
    try:
        return None if text is None else int(email.utils.parsedate_to_datetime(text).timestamp() * 1000)
    except ValueError:
        return None
