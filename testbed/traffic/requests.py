"""Requests byte for byte, for tests of the intake, and checks of the answers."""

from __future__ import annotations

import contextlib
import http
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.servers.forebay import ForebayServer
from testbed.traffic.wire import TIMEOUT_S, Answer, Wire

EVENT = b'{"page":"/home","event":"click"}'
PING = b"GET /ping HTTP/1.1\r\nHost: forebay\r\n\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: forebay\r\n\r\n"
H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}


class Client:
    """Makes requests for one server, with a valid token unless the test says otherwise."""

    def __init__(self, server: ForebayServer, bearer: str | None = None) -> None:
        self.server = server
        self.bearer = bearer or f"Bearer {server.token()}"

    def request(
        self,
        path: str = "/events",
        body: bytes | None = EVENT,
        headers: Mapping[str, str | None] | None = None,
        method: str = "POST",
        version: str = "1.1",
    ) -> bytes:
        """Return a request; a header is left out if it is None."""
        lines: dict[str, str | None] = {"Host": "forebay", "Authorization": self.bearer}
        if body is not None:
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines |= headers or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + (body or b"")

    def wire(self) -> Wire:
        return Wire(self.server)

    def post(self, path: str = "/events", body: bytes = EVENT, **headers: str | None) -> Answer:
        """Send one request on a connection of its own; underscores in names of headers stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.wire() as wire:
            return wire.ask(self.request(path, body, named))

    def get(self, path: str, authorization: str | None = None, method: str = "GET") -> Answer:
        with self.wire() as wire:
            wire.send(self.request(path, None, {"Authorization": authorization}, method))
            return wire.answer(to_head=method == "HEAD")

    def document(self, log_id: str) -> Any:
        """Wait for an event to arrive in the embedded store, and return its document."""
        return self.documents([log_id])[0]

    def documents(self, log_ids: list[str]) -> list[Any]:
        deadline = time.monotonic() + TIMEOUT_S
        found: dict[str, str] = {}
        while time.monotonic() < deadline:
            # The server makes the store behind its start.
            with contextlib.suppress(sqlite3.OperationalError):
                found = dict(self.stored(f"log_id IN ({','.join('?' * len(log_ids))})", log_ids))
            if len(found) == len(set(log_ids)):
                return [json.loads(found[log_id]) for log_id in log_ids]
            time.sleep(0.02)
        raise AssertionError(f"not delivered: {set(log_ids) - found.keys()}")

    def stored(self, condition: str, values: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Return `log_id` and document of events in the embedded store, as they are now."""
        uri = f"{(self.server.folder / 'spool-events.db').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as store:
            return store.execute(f"SELECT log_id, document FROM events WHERE {condition}", values).fetchall()  # noqa: S608


def assert_problem(answer: Answer, status: int, *fields: str) -> None:
    """Check a refusal as a client sees it: problem details, with exactly these fields to blame."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    errors = problem.pop("errors", [])
    assert problem.keys() == {"type", "title", "status", "detail"}
    assert (problem["type"], problem["title"]) == ("about:blank", http.HTTPStatus(status).phrase)
    assert problem["status"] == status
    assert problem["detail"]
    assert [error["field"] for error in errors] == list(fields)
    assert all(error.keys() == {"field", "reason"} and error["reason"] for error in errors)


def assert_created(answer: Answer, log_id: str | None = None) -> str:
    """Check the answer to an event that was taken; return its `log_id`."""
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    assert body.keys() == {"status", "log_id"}
    assert body["status"] == "created"
    if log_id is not None:
        assert body["log_id"] == log_id
    return str(body["log_id"])


def event(**fields: Any) -> bytes:
    return json.dumps({"page": "/home", "event": "click"} | fields, ensure_ascii=False).encode()


def chunked(body: bytes, size: int = 7) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels
