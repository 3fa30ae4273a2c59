"""Responses as bytes, for requests that are answered without ASGI."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias

import msgspec

from forebay.errors import Rejection, SpoolUnavailable
from forebay.model import Admission
from forebay.problems import PROBLEM_TYPE, problem

Headers = Iterable[tuple[str, str]]
Response: TypeAlias = tuple[int, bytes, bytes]
"""Status, head without date and connection lines, and body."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE_LINE = b"connection: close\r\n"

_encode = msgspec.json.Encoder().encode
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CREATED = b'{"status":"created","log_id":'
_PENDING = b'{"status":"pending","log_id":'


def head(status: int, content_type: str, length: int, headers: Headers = ()) -> bytes:
    """Return the head of a response."""
    lines = [_STATUS_LINES[status], f"content-type: {content_type}\r\ncontent-length: {length}\r\n".encode()]
    lines += [f"{name.lower()}: {value}\r\n".encode("latin-1", "replace") for name, value in headers]
    return b"".join(lines)


def as_bytes(response: Response, default_headers: list[tuple[bytes, bytes]], connection_line: bytes) -> bytes:
    """Return a whole response; the default headers are uvicorn's, with the date."""
    _, head, body = response
    return b"%b%b%b\r\n%b" % (head, _header_lines(tuple(default_headers)), connection_line, body)


@lru_cache(maxsize=2)
def _header_lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return headers as lines; they are asked for with every response, and change with the second."""
    return b"".join(b"%b: %b\r\n" % line for line in headers)


def rejection(error: Rejection) -> Response:
    """Return the answer that tells a client its mistake."""
    body = problem(error.status, error.detail, error.errors)
    return error.status, head(error.status, PROBLEM_TYPE, len(body), error.headers), body


def unavailable(error: SpoolUnavailable) -> Response:
    """Return the answer that asks a client to send again, and when."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    body = problem(status, str(error))
    return status, head(status, PROBLEM_TYPE, len(body), (("Retry-After", str(error.retry_after_s)),)), body


def failed() -> Response:
    """Return the answer after a fault of our own; nothing was taken."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    body = problem(status, "the server failed; nothing was taken")
    return status, head(status, PROBLEM_TYPE, len(body)), body


def admitted(admission: Admission, log_id: str) -> Response:
    """Return the answer to an event that is safe."""
    start = _CREATED if admission is Admission.CREATED else _PENDING
    body = b"%b%b}" % (start, _encode(log_id))
    return 200, _OK_HEAD % len(body), body


def json(value: object) -> Response:
    """Return a response with a JSON body."""
    body = _encode(value)
    return 200, _OK_HEAD % len(body), body


_OK_HEAD = _STATUS_LINES[200] + b"content-type: application/json\r\ncontent-length: %d\r\n"
PONG: Response = (200, head(200, "text/plain; charset=utf-8", len(b"pong")), b"pong")
