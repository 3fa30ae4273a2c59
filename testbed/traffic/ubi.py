"""UBI's JavaScript collector (ubi-javascript-collector/ubi.js) as a server sees it: the same bodies and headers.

It posts each event or query alone, in an array, by way of axios. It has no token, no queue and no second try.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from testbed.servers.forebay import ForebayServer
from testbed.traffic.requests import Client
from testbed.traffic.wire import Answer

HEADERS: Mapping[str, str | None] = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "User-Agent": "axios/1.13.2",
}


def now() -> str:
    """Return the time as `toISOString` of JavaScript does."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_event(action_name: str, client_id: str, query_id: str | None, **more: Any) -> dict[str, Any]:
    """Return an event as `new UbiEvent(...)` makes one; `more` replaces fields or adds some."""
    fields = {
        "application": "ubi-demo",
        "action_name": action_name,
        "query_id": query_id,
        "session_id": f"session of {client_id}",
        "client_id": client_id,
        "user_id": "",
        "timestamp": now(),
        "message_type": "INFO",
        "message": "",
    }
    return fields | more


def make_attributes(object_id: str, ordinal: int, **details: Any) -> dict[str, Any]:
    """Return the attributes of an event as `new UbiEventAttributes(...)` makes them."""
    found = {"object_id": object_id, "object_id_field": "ean", "description": f"a thing with the id {object_id}"}
    return {"object": found | details, "position": {"ordinal": ordinal}}


def make_query(user_query: str, client_id: str, query_id: str, **more: Any) -> dict[str, Any]:
    """Return a query as `new UbiQueryRequest(...)` makes one; `more` replaces fields or adds some."""
    fields = {
        "application": "ubi-demo",
        "query_id": query_id,
        "client_id": client_id,
        "user_query": user_query,
        "query_attributes": {},
        "object_id_field": "ean",
        "timestamp": now(),
    }
    return fields | more


def make_body(document: Mapping[str, Any]) -> bytes:
    """Return the body of a request."""
    return json.dumps([document], separators=(",", ":"), ensure_ascii=False).encode()


class Shop:
    """A page with the collector, whose base address has the token in its path.

    Attributes:
        token: the token.
        base: that base address.
    """

    def __init__(self, server: ForebayServer) -> None:
        self.token = server.token("shop")
        self.base = f"/ubi/{self.token}"
        self._client = Client(server)

    def track_event(self, event: Mapping[str, Any]) -> Answer:
        return self._post("/ubi_events", event)

    def track_query(self, query: Mapping[str, Any]) -> Answer:
        return self._post("/ubi_queries", query)

    def _post(self, path: str, document: Mapping[str, Any]) -> Answer:
        return self._client.post(self.base + path, make_body(document), Authorization=None, **HEADERS)
