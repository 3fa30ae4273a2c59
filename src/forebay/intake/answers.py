"""The answers on one connection: their bytes, and their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from typing import TypeAlias

from msgspec import Struct

from forebay.intake.limits import ConnectionLimits

Headers: TypeAlias = Iterable[tuple[str, str]]
Answer: TypeAlias = tuple[int, bytes, bytes]
"""Status, head without the lines of the server and of the connection, and body."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE_LINE = b"connection: close\r\n"
KEEP_ALIVE_LINE = b"connection: keep-alive\r\n"
"""Without it a client of HTTP/1.0 expects that the connection will be closed (RFC 9112, section 9.3)."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Turn(Struct, eq=False, kw_only=True):
    """An answer that waits for its turn, mostly to a request.

    Attributes:
        response: its bytes, None until they are known.
        connection_line: its line about the connection; empty if that is simply kept.
        origin_lines: its lines that let a page of another origin read it.
        is_last: whether the connection ends behind it.
        used_bytes: the memory of its request and its own until it is written; `ConnectionLimits` sets it.
        is_counted: whether it counts among the responses of the event addresses.
    """

    response: bytes | None = None
    connection_line: bytes = b""
    origin_lines: bytes = b""
    is_last: bool = False
    used_bytes: int = 0
    is_counted: bool = True

    def begin(self) -> None:
        """Hear that every answer before it is written."""

    def end_connection(self) -> None:
        """Let the connection end behind it."""
        self.is_last = True

    def disconnect(self) -> None:
        """Hear that the client is gone."""


class KnownTurn(Turn, eq=False, kw_only=True):
    """An answer to a ping or a refused head: known before the body of the request is there, and waiting for that."""

    answer: Answer
    dropped_bytes: int = 0


class AnswerQueue(deque[Turn]):
    """The unanswered requests of a connection, oldest first: answers leave in the order of the requests."""

    def __init__(self, transport: asyncio.Transport, limits: ConnectionLimits) -> None:
        super().__init__()
        self._transport = transport
        self._limits = limits

    def write_due(self) -> bool:
        """Write every answer whose turn it is, all in one piece; return whether one was the last on the connection."""
        due = b""
        while self and (response := self[0].response) is not None:
            turn = self.popleft()
            due = due + response if due else response
            if turn.used_bytes:
                self._limits.set_used_bytes(turn, 0)
            if turn.is_last:
                self._transport.write(due)
                return True
            if not self:
                break
            if self[0].response is None:
                # This only starts a task, so its answer comes behind those that are due.
                self[0].begin()
        if due:
            self._transport.write(due)
        return False

    def end_connection(self) -> None:
        """Let the connection end behind the newest request."""
        self[-1].end_connection()

    def disconnect(self) -> None:
        """Take out all requests: nobody waits for their answers any more."""
        for turn in self:
            turn.disconnect()
            # The pipeline still has those without an answer, and their events.
            if turn.response is not None:
                self._limits.set_used_bytes(turn, 0)
        self.clear()


class ServerLines:
    """uvicorn's header lines for every answer, with the date: uvicorn makes a new list of them each second."""

    def __init__(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._lines = b""

    def join(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return headers as lines."""
        if headers is not self._headers:
            self._headers = headers
            self._lines = b"".join(b"%b: %b\r\n" % line for line in headers)
        return self._lines


def head(status: int, content_type: str, length: int, headers: Headers = ()) -> bytes:
    """Return the head of an answer."""
    lines = [_STATUS_LINES[status], f"content-type: {content_type}\r\ncontent-length: {length}\r\n".encode()]
    lines += [f"{name.lower()}: {value}\r\n".encode("latin-1", "replace") for name, value in headers]
    return b"".join(lines)


def ok_head(content_type: str) -> bytes:
    """Return the head of an answer 200 of this type, in which `%d` stands for the length of the body."""
    return b"%bcontent-type: %b\r\ncontent-length: %%d\r\n" % (_STATUS_LINES[200], content_type.encode())


PONG: Answer = (200, head(200, "text/plain; charset=utf-8", len(b"pong")), b"pong")
PONG_WITHOUT_BODY: Answer = (*PONG[:2], b"")
