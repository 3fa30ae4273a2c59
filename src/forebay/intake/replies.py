"""Replies as bytes, for requests that are answered without ASGI."""

from __future__ import annotations

import http
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from forebay.errors import Rejection, SpoolUnavailable
from forebay.model import Admission
from forebay.problems import PROBLEM_TYPE, problem

Headers = Iterable[tuple[str, str]]
Reply: TypeAlias = tuple[int, bytes, bytes]
"""Status, head but for the lines that the connection adds and the empty line, and body."""


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_encode = msgspec.json.Encoder().encode
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
_CREATED = b'{"status":"created","log_id":'
_PENDING = b'{"status":"pending","log_id":'


def head(status: int, content_type: str, length: int, headers: Headers = ()) -> bytes:
    """Return the head of a reply."""
    lines = [_STATUS_LINES[status], f"content-type: {content_type}\r\ncontent-length: {length}\r\n".encode()]
    lines += [f"{name.lower()}: {value}\r\n".encode("latin-1", "replace") for name, value in headers]
    return b"".join(lines)


def rejection(error: Rejection) -> Reply:
    """Return what tells a client what to correct."""
    body = problem(error.status, error.detail, error.errors)
    return error.status, head(error.status, PROBLEM_TYPE, len(body), error.headers), body


def unavailable(error: SpoolUnavailable) -> Reply:
    """Return what tells a client to send again, and when."""
    body = problem(503, str(error))
    return 503, head(503, PROBLEM_TYPE, len(body), (("Retry-After", str(error.retry_after_s)),)), body


def failed() -> Reply:
    """Return the answer for a fault of our own, after which nothing was taken."""
    body = problem(500, "the server failed; nothing was taken")
    return 500, head(500, PROBLEM_TYPE, len(body)), body


def admitted(admission: Admission, log_id: str) -> Reply:
    """Return what tells a client that its event is safe."""
    start = _CREATED if admission is Admission.CREATED else _PENDING
    body = b"%b%b}" % (start, _encode(log_id))
    return 200, _OK_HEAD % len(body), body


def json(value: object) -> Reply:
    """Return a a reply with a value."""
    body = _encode(value)
    return 200, _OK_HEAD % len(body), body


_OK_HEAD = _STATUS_LINES[200] + b"content-type: application/json\r\ncontent-length: %d\r\n"
PONG: Reply = (200, head(200, "text/plain; charset=utf-8", len(b"pong")), b"pong")
