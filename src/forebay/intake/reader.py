"""Input becomes requests: httptools parses it piece by piece, and the size of heads is limited (431)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Protocol

import httptools

from forebay.errors import Rejection

HEADER_LINES_MAX = 100
"""Most lines in a head: short ones take many times their bytes in memory. Apache's `LimitRequestFields` is the same."""

HEADER_LINE_BYTES = 130
"""Memory of a line in a head, beside its own bytes."""


class Connection(Protocol):
    """The connection, as its reader calls it: in this order for each request, `take_body` for each piece of it."""

    def begin_request(self) -> None:
        """Begin: the first byte of a request is there."""

    def take_head(self) -> None:
        """Take the head, from the reader's attributes."""

    def take_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def end_request(self) -> None:
        """Take the request, which has arrived whole."""

    def refuse_connection(self, error: Rejection) -> None:
        """Answer input that is no request, and stop the reader; called once."""


class RequestReader:
    """Parses the input of one connection, and calls the connection for each part of a request.

    Attributes:
        url: the address of the newest request.
        headers: its header lines, as they came.
    """

    def __init__(self, connection: Connection, header_bytes_max: int) -> None:
        self._connection = connection
        self._header_bytes_max = header_bytes_max
        self._parser: Any = httptools.HttpRequestParser(self)
        # Without this, input after a request with `Connection: close` would be an error, and be refused.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._in_request = False
        self._in_head = False
        self._stopped = False
        # Bytes since the head began or since the last piece of the body, without those of the piece in which the head
        # began; the bytes of that piece; and of the newest piece.
        self._stalled_bytes = 0
        self._first_piece_bytes = 0
        self._piece_bytes = 0

    @property
    def method(self) -> bytes:
        """Return the method of the newest request."""
        method: bytes = self._parser.get_method()
        return method

    @property
    def http_version(self) -> str:
        """Return the version of HTTP of the newest request, as `1.1`."""
        version: str = self._parser.get_http_version()
        return version

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to keep the connection after the newest request."""
        keep_alive: bool = self._parser.should_keep_alive()
        return keep_alive

    @property
    def head_memory_bytes(self) -> int:
        """Return the memory of a head that is still arriving, else 0."""
        if not self._in_head:
            return 0
        return self._stalled_bytes + self._piece_bytes + HEADER_LINE_BYTES * len(self.headers)

    def feed(self, piece: bytes) -> None:
        """Parse a piece of the input."""
        self._piece_bytes = len(piece)
        self._stalled_bytes += len(piece)
        try:
            self._parse(piece)
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not HTTP")
        if self._in_request and self._stalled_bytes > self._header_bytes_max:
            # The parser does not pass on an unfinished line, in the head or after the body, so the input is measured.
            self._refuse_head()

    def stop(self) -> None:
        """Read no more requests; further input is dropped."""
        self._stopped = True
        self._in_request = False
        self._in_head = False
        self.headers = []

    def close(self) -> None:
        """Free the parser, which refers to this reader: cycles are collected rarely."""
        self._parser = None

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser has read the head, and would skip the body for a protocol that is not offered here. A
                # server may answer as if the client had not asked for it (RFC 9110, section 7.8).
                rest = rest[upgrade.args[0] :]
                if self.method == b"CONNECT":
                    self._refuse(HTTPStatus.NOT_IMPLEMENTED, "this is no proxy")
                    return
                head = self._head_without_upgrade()
                self._piece_bytes += len(head)
                # The old parser has given up if the connection is to be closed after the request.
                self._parser = httptools.HttpRequestParser(self)
                self._parser.feed_data(head)
            else:
                return

    def _head_size(self) -> int:
        first_line = b"%b %b HTTP/1.1\r\n" % (self.method, self.url)
        lines_bytes = sum(len(name) + len(b": ") + len(value) + len(b"\r\n") for name, value in self.headers)
        return len(first_line) + lines_bytes + len(b"\r\n")

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b: %b\r\n" % line for line in self.headers if line[0].lower() != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self.method, self.url, self.http_version.encode(), b"".join(lines))

    def _refuse_head(self) -> None:
        detail = f"the head is larger than {self._header_bytes_max} bytes"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        # The parser goes on to the end of a piece in which something was refused already.
        if not self._stopped:
            self._connection.refuse_connection(Rejection(status, detail))

    # The parser calls these

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._stopped:
            return
        self.url = b""
        self.headers = []
        self._in_request = True
        self._in_head = True
        self._stalled_bytes = 0
        self._first_piece_bytes = self._piece_bytes
        self._connection.begin_request()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line; lines after a body are ignored."""
        if not self._in_head:
            return
        self.headers.append((name, value))
        if len(self.headers) > HEADER_LINES_MAX:
            detail = f"the head has more than {HEADER_LINES_MAX} lines"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def on_headers_complete(self) -> None:
        """Pass on the head, unless it is too large."""
        if self._stopped or self._parser.should_upgrade():
            return
        # Most heads came in so few bytes that they need not be measured.
        input_bytes = self._first_piece_bytes + self._stalled_bytes
        if input_bytes > self._header_bytes_max and self._head_size() > self._header_bytes_max:
            self._refuse_head()
            return
        self._in_head = False
        self._stalled_bytes = 0
        self._connection.take_head()

    def on_body(self, data: bytes) -> None:
        """Pass on a piece of the body."""
        self._stalled_bytes = 0
        self._connection.take_body(data)

    def on_message_complete(self) -> None:
        """Pass on the end of the request."""
        if self._stopped or self._parser.should_upgrade():
            return
        self._in_request = False
        self._connection.end_request()
