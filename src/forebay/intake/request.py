"""A request: its address, its parts as they arrive, and its one answer."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import httptools

from forebay.errors import Rejection, SpoolInDoubt, SpoolUnavailable
from forebay.intake import responses
from forebay.intake.responses import Response
from forebay.model import Admission, Entry, entry_index
from forebay.pipeline.group import Part
from forebay.telemetry.counters import Counters

NO_BODY = b""

KEEP_ALIVE_LINE = b"connection: keep-alive\r\n"
"""Without it a client of HTTP/1.0 expects that the connection will be closed (RFC 9112, section 9.3)."""


class Route(enum.Enum):
    """An address that is answered without ASGI."""

    PING = "/ping"
    EVENT = "/events"
    BATCH = "/events/batch"


METHODS = {Route.PING: (b"GET", b"HEAD"), Route.EVENT: (b"POST",), Route.BATCH: (b"POST",)}

_ROUTES = {route.value.encode(): route for route in Route}


def resolve(url: bytes) -> tuple[Route | None, bytes]:
    """Return the route of a request, or None if the ASGI application answers it, and its query.

    Raises:
        Rejection: 400 if it is not an address.
    """
    route = _ROUTES.get(url)
    if route is not None:
        return route, b""
    try:
        # Also the absolute form, which a server must accept (RFC 9112, section 3.2.2).
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        parsed = None
    if parsed is None or parsed.path is None:
        raise Rejection(HTTPStatus.BAD_REQUEST, "the address of the request is not valid")
    return _ROUTES.get(unquote_to_bytes(parsed.path)), parsed.query or b""


class Connection(Protocol):
    """The connection on which a request came."""

    def answer(self, request: EventRequest, response: Response) -> None:
        """Write an answer and start the next request of the connection."""

    def abandon(self, request: EventRequest) -> None:
        """Close the connection without an answer."""


class EventRequest:
    """A request that is answered without ASGI; the pipeline tells it when its events are safe.

    Attributes:
        results: one for each event of a batch, in its order; None for a single event.
        log_id: of a single event.
        used_bytes: its memory until it is answered; `ConnectionLimits` sets it.
        head_only: whether the answer has no body (`HEAD`).
        keep_alive_line: the line of the answer that tells a client of HTTP/1.0 that the connection is kept, else empty.
        early_response: the refusal of a request whose body has not arrived.
        response_complete: whether it is answered.
    """

    __slots__ = (
        "_connection",
        "_counters",
        "body",
        "early_response",
        "entries",
        "entry_bytes",
        "head_only",
        "headers",
        "keep_alive",
        "keep_alive_line",
        "log_id",
        "query",
        "response_complete",
        "results",
        "route",
        "used_bytes",
    )

    def __init__(
        self, connection: Connection, counters: Counters, route: Route, query: bytes, headers: dict[bytes, bytes]
    ) -> None:
        self._connection = connection
        self._counters = counters
        self.route = route
        self.query = query
        self.headers = headers
        self.body: bytes | bytearray = NO_BODY
        self.entries: list[Entry] = []
        self.entry_bytes = 0
        self.used_bytes = 0
        self.log_id = ""
        self.results: list[dict[str, Any]] | None = None
        self.head_only = False
        self.early_response: Response | None = None
        self.response_complete = False
        self.keep_alive = True
        self.keep_alive_line = b""

    def receive(self, data: bytes) -> None:
        """Add a piece of the body; most bodies come in one piece, which is not copied."""
        if self.body is NO_BODY:
            self.body = data
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += data

    @property
    def parts(self) -> Sequence[Part]:
        """Its events by their index."""
        if len(self.entries) == 1:
            return (Part(entry_index(self.entries[0]), self.entries, self.entry_bytes),)
        by_index: dict[str, list[Entry]] = {}
        for entry in self.entries:
            by_index.setdefault(entry_index(entry), []).append(entry)
        return [Part(index, entries, sum(map(len, entries))) for index, entries in by_index.items()]

    def admitted(self, admission: Admission) -> None:
        """Tell the client that its events are safe."""
        self._counters.accepted += len(self.entries)
        if self.results is None:
            self.reply(responses.admitted(admission, self.log_id))
            return
        for result in self.results:
            result.setdefault("status", admission)
        accepted = len(self.entries)
        rejected = len(self.results) - accepted
        self.reply(responses.json({"accepted": accepted, "rejected": rejected, "results": self.results}))

    def refused(self, error: SpoolUnavailable) -> None:
        """Tell the client to send again; if no answer can be right, close without one."""
        self._counters.unavailable += len(self.entries)
        if isinstance(error, SpoolInDoubt):
            self._connection.abandon(self)
        else:
            self.reply(responses.unavailable(error))

    def reply(self, response: Response) -> None:
        """Send the answer."""
        self._connection.answer(self, response)
