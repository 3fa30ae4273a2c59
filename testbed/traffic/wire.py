"""A connection on which every byte is the test's own, and an answer as it arrived."""

from __future__ import annotations

import contextlib
import http
import json
import socket
from types import TracebackType
from typing import Any, NamedTuple, Self

from testbed.servers.forebay import ForebayServer
from testbed.servers.ports import HOST

TIMEOUT_S = 15.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection on which every byte is the test's own."""

    def __init__(self, server: ForebayServer, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT_S)
        try:
            self.socket.connect((HOST, server.port))
        except OSError:
            self.socket.close()
            raise
        # Each piece is to arrive as one.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_while_open(self, data: bytes, times: int) -> None:
        """Send without end, as a client does that reads the answer only after its last byte."""
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                self.socket.sendall(data)

    def answer(self, *, to_head: bool = False) -> Answer:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, phrase = first.split(" ", 2)
        assert (version, phrase) == ("HTTP/1.1", http.HTTPStatus(int(status)).phrase)
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if to_head else int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return Answer(int(status), headers, body)

    def skim(self, wanted: bytes, times: int) -> None:
        """Read until something has come so many times, as fast as possible."""
        while (found := self._received.count(wanted)) < times:
            times -= found
            # The rest may be the beginning of the next.
            self._received = self._received[max(0, len(self._received) - len(wanted) + 1) :]
            self._receive()
        self._received = b""

    def ask(self, request: bytes) -> Answer:
        self.send(request)
        return self.answer()

    @property
    def is_silent(self) -> bool:
        """Whether all input was read."""
        self.socket.setblocking(False)  # noqa: FBT003 - positional only
        try:
            return not self._received and not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(TIMEOUT_S)

    def assert_closed(self) -> None:
        """Wait for the end of the connection, before which nothing more may come."""
        assert self._received == b""
        with contextlib.suppress(ConnectionResetError):
            assert self.socket.recv(1_000) == b""

    def _receive(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError(f"closed after {self._received!r}")
        self._received += data
