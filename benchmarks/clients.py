"""The clients that the load pretends to be, and a slow, exact way to send their events one by one."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.candidates import SECRET, Form
from benchmarks.processes import BenchmarkError
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = sys.executable
TOKEN_LIFE_S = 6 * 3600
VERSIONS = (("3.14.0", "iOS 19.2"), ("3.14.1", "Android 16"), ("3.13.9", "iOS 18.6"), ("3.12.2", "Android 15"))


class Client(NamedTuple):
    """A device with a signed-in user."""

    token: str
    device: str
    app: str
    system: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every request of this client carries."""
        return {
            "Authorization": f"Bearer {self.token}",
            "device-uuid": self.device,
            "app-version": self.app,
            "os-version": self.system,
            "Content-Type": "application/json",
        }


def make(users: int) -> list[Client]:
    """Make clients with tokens of their own: one token for all would flatter a server that remembers tokens."""
    return [
        Client(
            make_token(SECRET, f"user-{number}", [Scope.WRITE], TOKEN_LIFE_S),
            str(uuid.uuid4()),
            *VERSIONS[number % len(VERSIONS)],
        )
        for number in range(users)
    ]


def write(listing: Path, clients: list[Client]) -> None:
    """Write the clients in the form that the load script reads."""
    listing.write_text("".join("\t".join(client) + "\n" for client in clients))


def log_id() -> str:
    """Make an id with the layout of UUIDv7."""
    random = secrets.randbits(74)
    value = int(time.time() * 1000) << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & (1 << 62) - 1
    return str(uuid.UUID(int=value))


def event(number: int) -> dict[str, Any]:
    """Make an ordinary event, of the size and form that the load scripts send."""
    return {
        "log_id": log_id(),
        "page": ("home", "search", "product", "cart", "checkout")[number % 5],
        "event": ("view", "click", "scroll", "impression")[number % 4],
        "label": ("Add to basket", "Buy now", "See all reviews", "바로구매")[number % 4],
        "target": f"product-{1_000_000 + number % 99_991}",
        "section": ("top-banner", "recommendations", "footer")[number % 3],
        "param": {
            "product_id": 1_000_000 + number % 99_991,
            "price": 1_990 + number % 401 * 10,
            "currency": "KRW",
            "position": number % 40,
            "referrer": ("push", "search-engine", "newsletter", "direct")[number % 4],
            "logged_in": True,
            "query": "running shoes",
        },
    }


def body(start: int, size: int, *, batch: bool) -> bytes:
    """Write one request's events as JSON."""
    events = [event(start + offset) for offset in range(size)]
    return to_json(events if batch else events[0])


def content(form: Form, client: Client, events: list[dict[str, Any]]) -> bytes:
    """Write one request's events in the form that a server takes."""
    if form is Form.OTLP:
        return to_json(otlp(events, client))
    return to_json(events if len(events) > 1 else events[0])


def to_json(value: Any) -> bytes:
    """Write JSON as compact as a client does."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def otlp(events: list[dict[str, Any]], client: Client) -> dict[str, Any]:
    """Make log records of events, in OTLP's form for JSON; wrk sends the same in protobuf."""
    records = [
        {
            "timeUnixNano": str(time.time_ns()),
            "body": otlp_value({name: value for name, value in one.items() if name != "log_id"}),
            "attributes": otlp_pairs({"log_id": one["log_id"]}),
        }
        for one in events
    ]
    sender = {"device_uuid": client.device, "app_version": client.app, "os_version": client.system}
    return {"resourceLogs": [{"resource": {"attributes": otlp_pairs(sender)}, "scopeLogs": [{"logRecords": records}]}]}


def otlp_pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Write an object as OTLP does: a list of keys with values that name their types."""
    return [{"key": key, "value": otlp_value(value)} for key, value in values.items()]


def otlp_value(value: Any) -> dict[str, Any]:
    """Write a value with its type."""
    if isinstance(value, dict):
        return {"kvlistValue": {"values": otlp_pairs(value)}}
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def post(connection: http.client.HTTPConnection, client: Client, path: str, content: bytes) -> tuple[int, bytes]:
    """Send one request and read its answer."""
    connection.request("POST", path, content, client.headers)
    response = connection.getresponse()
    return response.status, response.read()


def request(path: str, client: Client, content: bytes) -> bytes:
    """Write a whole request, as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in client.headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


def post_in_one_piece(port: int, whole: bytes) -> tuple[int, bytes]:
    """Send a request as wrk does, with one write, and read its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(whole)
        response = http.client.HTTPResponse(connection, method="POST")
        response.begin()
        return response.status, response.read()


def probe(
    port: int, client: Client, path: str, size: int, *, form: Form = Form.NATIVE, checks_token: bool = True
) -> None:
    """Make sure, before wrk starts, that an event gets a 200 and a false token none: wrk tells only good from bad."""
    wanted = content(form, client, [event(number) for number in range(size)])
    status, answer = post_in_one_piece(port, request(path, client, wanted))
    if status != http.client.OK:
        raise BenchmarkError(f"{path} answers {status} to a good event: {answer[:500]!r}")
    stranger = client._replace(token=client.token[:-4] + "AAAA")
    status, answer = post_in_one_piece(port, request(path, stranger, wanted))
    if checks_token and status != http.client.UNAUTHORIZED:
        raise BenchmarkError(f"{path} answers {status} to a false token: {answer[:500]!r}")
