"""Checks whether a server is running here, and takes events."""

from __future__ import annotations

import email.utils
import http.client
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, Level, fail, ok, warn
from forebay.errors import ForebayError, SettingsError
from forebay.secret import find_secret
from forebay.settings import Settings
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_own_token

TIMEOUT_S = 5.0
TOKEN_S = 60
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - addresses to listen on, and ours to connect to


class ServerSilent(ForebayError):
    """No server answers at the address of the settings."""


class Reply(NamedTuple):
    """An answer of the server, and the time of its Date line in milliseconds since 1970."""

    status: int
    body: bytes
    date_ms: int | None


def read_secret(settings: Settings) -> str | None:
    """Return the secret of the server, or None if there is none that can be used; none is made here."""
    try:
        return find_secret(settings)
    except SettingsError:
        return None


def check(context: Context) -> Iterator[Finding]:
    """Ask the server whether it takes events, and for the reason if it does not."""
    settings = context.settings
    address = f"http://{_host(settings)}:{settings.server_port}"
    if not settings.server_port:
        yield warn("its port is not known: SERVER_PORT is 0", "give it a port of its own")
        return
    try:
        reply = ask(settings, "/health/ready")
    except ServerSilent as error:
        yield warn(str(error), "start it, or see its log; clients get no answer")
        return
    yield from judge_readiness(address, reply)


def judge_readiness(address: str, reply: Reply) -> Iterator[Finding]:
    """Judge the answer to `/health/ready`."""
    try:
        body: dict[str, Any] = msgspec.json.decode(reply.body, type=dict[str, Any])
        status = str(body["status"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        text = f"another program than Forebay answers at {address} (status {reply.status})"
        yield fail(text, "correct SERVER_PORT, or end that program")
        return
    if status == "ready":
        yield ok(f"takes events at {address}")
        return
    level = Level.FAIL if reply.status == HTTPStatus.SERVICE_UNAVAILABLE else Level.WARN
    causes = body.get("causes") or ()
    for cause in causes:
        yield Finding(level, f"{status}: {cause}", "see the lines about it, and the server's log")
    if not causes:
        advice = "run this with the JWT_SECRET that the server was started with"
        yield Finding(level, f"{status}, and does not tell us why", advice)


def ask(settings: Settings, path: str) -> Reply:
    """Send a request to the server, with a token if there is a secret to sign it with.

    Raises:
        ServerSilent: nobody answers, or its port is not known.
    """
    if not settings.server_port:
        raise ServerSilent("its port is not known: SERVER_PORT is 0")
    host, secret = _host(settings), read_secret(settings)
    headers = {}
    if secret is not None:
        headers["Authorization"] = f"Bearer {make_own_token(settings, secret, 'forebay-doctor', [Scope.READ], TOKEN_S)}"
    connection = http.client.HTTPConnection(host, settings.server_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return Reply(response.status, response.read(), _read_date(response.getheader("Date")))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ServerSilent(f"no server answers at http://{host}:{settings.server_port}: {reason}") from error
    finally:
        connection.close()


def _host(settings: Settings) -> str:
    return ANYWHERE.get(settings.host, settings.host)


def _read_date(text: str | None) -> int | None:
    try:
        return None if text is None else int(email.utils.parsedate_to_datetime(text).timestamp() * 1000)
    except ValueError:
        return None
