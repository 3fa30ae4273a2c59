"""One request in hand: what arrived, and the one answer that it gets."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from forebay.errors import SpoolInDoubt, SpoolUnavailable
from forebay.intake import replies
from forebay.intake.targets import Target
from forebay.model import Admission, Entry
from forebay.telemetry.counters import Counters

NO_BODY = b""

KEEP_ALIVE_LINE = b"connection: keep-alive\r\n"
"""Without it a client of HTTP/1.0 takes the connection for one that will be closed (RFC 9112, section 9.3)."""


class Connection(Protocol):
    """Where the answer goes."""

    def answer(self, exchange: Exchange, reply: replies.Reply) -> None:
        """Write an answer and let the next request of the connection begin."""

    def abandon(self, exchange: Exchange) -> None:
        """Close the connection without an answer."""


class Exchange:
    """A request and its answer; as a `Submission` it hears from the pipeline that its events are safe.

    Attributes:
        results: a batch's results, one for each event in its order; None for a single event.
        log_id: a single event's.
        held_bytes: what it takes in memory until it is answered; the crowd keeps it.
        head_only: whether the answer goes without its body (`HEAD`).
        kept_line: the line of the answer that says that the connection is kept, empty if its client knows that.
        early_reply: the answer to a request that is refused before its body has arrived.
        response_complete, keep_alive, disconnected, message_event: what uvicorn asks of a request in hand.
    """

    __slots__ = (
        "_connection",
        "_counters",
        "body",
        "disconnected",
        "early_reply",
        "entries",
        "entry_bytes",
        "head_only",
        "headers",
        "held_bytes",
        "keep_alive",
        "kept_line",
        "log_id",
        "query",
        "response_complete",
        "results",
        "target",
    )

    message_event = asyncio.Event()

    def __init__(
        self, connection: Connection, counters: Counters, target: Target, query: bytes, headers: dict[bytes, bytes]
    ) -> None:
        self._connection = connection
        self._counters = counters
        self.target = target
        self.query = query
        self.headers = headers
        self.body: bytes | bytearray = NO_BODY
        self.entries: list[Entry] = []
        self.entry_bytes = 0
        self.held_bytes = 0
        self.log_id = ""
        self.results: list[dict[str, Any]] | None = None
        self.head_only = False
        self.early_reply: replies.Reply | None = None
        self.response_complete = False
        self.keep_alive = True
        self.kept_line = b""
        self.disconnected = False

    def receive(self, data: bytes) -> None:
        """Take a piece of the body; the usual one arrives in one piece and is not copied."""
        if self.body is NO_BODY:
            self.body = data
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += data

    def admitted(self, admission: Admission) -> None:
        """Tell the client that its events are safe."""
        self._counters.accepted += len(self.entries)
        if self.results is None:
            self.reply(replies.admitted(admission, self.log_id))
            return
        for result in self.results:
            result.setdefault("status", admission)
        accepted = len(self.entries)
        rejected = len(self.results) - accepted
        self.reply(replies.json({"accepted": accepted, "rejected": rejected, "results": self.results}))

    def refused(self, error: SpoolUnavailable) -> None:
        """Tell the client to send again; by no answer at all if none can be right."""
        self._counters.unavailable += len(self.entries)
        if isinstance(error, SpoolInDoubt):
            self._connection.abandon(self)
        else:
            self.reply(replies.unavailable(error))

    def forget(self) -> None:
        """Let go of everything but the answer: the connection keeps its newest request, also while it is idle."""
        self.headers = {}
        self.body = NO_BODY
        self.entries = []
        self.results = None

    def reply(self, reply: replies.Reply) -> None:
        """Send the answer."""
        self._connection.answer(self, reply)
