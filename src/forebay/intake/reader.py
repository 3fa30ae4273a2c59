"""Input becomes requests: httptools parses it piece by piece, and the size of heads is limited (431)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Protocol

import httptools

from forebay.errors import Rejection
from forebay.intake.limits import read_length

HEADER_LINES_MAX = 100
"""Most lines in a head: short ones take many times their bytes in memory. Apache's `LimitRequestFields` is the same."""

HEADER_LINE_BYTES = 130
"""Memory of a line in a head, beside its own bytes."""


class Connection(Protocol):
    """The connection, as its reader calls it: in this order for each request, `take_body` for each piece of it."""

    def take_head(self) -> None:
        """Take the head, from the reader's attributes."""

    def take_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def end_request(self) -> None:
        """Take the request, which has arrived whole."""

    def refuse(self, error: Rejection) -> None:
        """Answer input that is no request, and stop the reader; called once."""


class RequestReader:
    """Parses the input of one connection, and calls the connection for each part of a request.

    Attributes:
        url: the address of the newest request.
        headers: its header lines, as they came; none once it has arrived, so that idle connections keep none.
        announced_body_bytes: the size of its body, 0 if it was not announced.
        is_in_request: whether a request has begun to arrive, and is not there yet.
        is_stopped: whether no more requests are read.
        parser: tells the method, the version and `should_keep_alive` of the newest request.
        requests_begun: how many requests have begun in the newest piece; one that asks for an upgrade begins twice.
    """

    def __init__(self, connection: Connection, header_bytes_max: int) -> None:
        self._connection = connection
        self._header_bytes_max = header_bytes_max
        self.parser: Any = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.announced_body_bytes = 0
        self.is_in_request = False
        self._is_in_head = False
        self._is_upgrade = False
        self.is_stopped = False
        # Bytes since the head began or since the last piece of the body; without the piece in which the head began, if
        # something else was before it there. The bytes of that piece, else 0; and of the newest piece.
        self._stalled_bytes = 0
        self._first_piece_bytes = 0
        self._piece_bytes = 0
        self._is_behind_another = False
        self.requests_begun = 0

    @property
    def head_memory_bytes(self) -> int:
        """Return the memory of a head that is still arriving, else 0."""
        if not self._is_in_head:
            return 0
        return self._stalled_bytes + self._first_piece_bytes + HEADER_LINE_BYTES * len(self.headers)

    def feed(self, piece: bytes) -> None:
        """Parse a piece of the input, or drop it if the reader is stopped."""
        self.requests_begun = 0
        self._piece_bytes = len(piece)
        self._stalled_bytes += len(piece)
        self._is_behind_another = self.is_in_request
        rest = piece
        while rest and not self.is_stopped:
            try:
                self.parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = self._read_without_upgrade(rest[upgrade.args[0] :])
            except httptools.HttpParserCallbackError:
                raise
            except httptools.HttpParserError:
                self._refuse(HTTPStatus.BAD_REQUEST, "the request is not HTTP")
                break
        if self.is_in_request:
            self._check_unfinished()
        elif self.is_stopped:
            # The parser has gone on to the end of the piece, and passed on what is behind the last request.
            self.url, self.headers = b"", []

    def stop(self) -> None:
        """Read no more requests; further input is dropped."""
        self.is_stopped = True
        self.is_in_request = self._is_in_head = False
        self.headers = []

    def close(self) -> None:
        """Free the parser, which refers to this reader: cycles are collected rarely."""
        self.parser = None

    def _check_unfinished(self) -> None:
        """Refuse a head, or lines within or after a body, that have grown too large before their end is there."""
        # The parser does not pass on an unfinished line, so the input is measured.
        if self._stalled_bytes > self._header_bytes_max:
            self._refuse_head()
        elif len(self.headers) > HEADER_LINES_MAX:
            self._refuse_lines()

    def _read_without_upgrade(self, rest: bytes) -> bytes:
        """Return the input behind a head that asks for another protocol, with that head as an ordinary one before it.

        The parser has read the head, and would skip the body for a protocol that is not offered here. A server may
        answer as if the client had not asked for it (RFC 9110, section 7.8).
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "this is no proxy")
            return b""
        lines = [b"%b: %b\r\n" % line for line in self.headers if line[0].lower() != b"upgrade"]
        version = self.parser.get_http_version().encode()
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))
        self._piece_bytes += len(head)
        # The old parser has given up if the connection is to be closed after the request.
        self.parser = httptools.HttpRequestParser(self)
        return head + rest

    def _head_bytes(self) -> int:
        first_line = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        lines_bytes = sum(len(name) + len(b": ") + len(value) + len(b"\r\n") for name, value in self.headers)
        return len(first_line) + lines_bytes + len(b"\r\n")

    def _refuse_head(self) -> None:
        detail = f"the head is larger than {self._header_bytes_max} bytes"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def _refuse_lines(self) -> None:
        detail = f"the head has more than {HEADER_LINES_MAX} lines"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        # The parser goes on to the end of a piece in which something was refused already.
        if not self.is_stopped:
            self._connection.refuse(Rejection(status, detail))

    # The parser calls these

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self.is_stopped:
            return
        self.url = b""
        self.headers = []
        self.is_in_request = self._is_in_head = True
        self.requests_begun += 1
        if self._is_behind_another:
            self._stalled_bytes, self._first_piece_bytes = 0, self._piece_bytes
        else:
            self._stalled_bytes, self._first_piece_bytes = self._piece_bytes, 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line. It is called most often of all, so everything else is done once for all lines."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Pass on the head, unless it is too large."""
        self._is_upgrade = self.parser.should_upgrade()
        if self.is_stopped or self._is_upgrade:
            return
        if len(self.headers) > HEADER_LINES_MAX:
            self._refuse_lines()
            return
        # Most heads came in so few bytes that they need not be measured.
        input_bytes = self._first_piece_bytes + self._stalled_bytes
        if input_bytes > self._header_bytes_max and self._head_bytes() > self._header_bytes_max:
            self._refuse_head()
            return
        self._is_in_head = False
        self._stalled_bytes = 0
        self.announced_body_bytes = 0
        for name, value in self.headers:
            lowered = name.lower()
            if lowered == b"content-length":
                self.announced_body_bytes = read_length(value)
            elif lowered == b"transfer-encoding" and b"," in value and value.strip().lower().endswith(b"chunked"):
                # The parser would pass on the body in a coding that nobody undoes (RFC 9112, section 6.1).
                self._refuse(HTTPStatus.NOT_IMPLEMENTED, "of transfer codings only chunked is taken")
                return
        self._connection.take_head()

    def on_body(self, data: bytes) -> None:
        """Pass on a piece of the body."""
        self._stalled_bytes = 0
        self._connection.take_body(data)

    def on_message_complete(self) -> None:
        """Pass on the end of the request."""
        if self.is_stopped or self._is_upgrade:
            return
        self.is_in_request = False
        self._is_behind_another = True
        self._connection.end_request()
        self.headers = []
