"""The clients that the load pretends to be, and a slow, exact way to send their events one by one."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.candidates import SECRET
from benchmarks.processes import BenchmarkError
from forebay.tokens import Scope, make_token

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
    return json.dumps(events if batch else events[0], ensure_ascii=False, separators=(",", ":")).encode()


def post(connection: http.client.HTTPConnection, client: Client, path: str, content: bytes) -> tuple[int, bytes]:
    """Send one request and read its answer."""
    connection.request("POST", path, content, client.headers)
    response = connection.getresponse()
    return response.status, response.read()


def probe(port: int, client: Client, path: str, size: int) -> None:
    """Make sure, before wrk starts, that an event gets a 200 and a false token none: wrk tells only good from bad."""
    content = body(0, size, batch=size > 1)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        status, answer = post(connection, client, path, content)
        if status != http.client.OK:
            raise BenchmarkError(f"{path} answers {status} to a good event: {answer[:500]!r}")
        status, answer = post(connection, client._replace(token=client.token[:-4] + "AAAA"), path, content)
        if status != http.client.UNAUTHORIZED:
            raise BenchmarkError(f"{path} answers {status} to a false token: {answer[:500]!r}")
