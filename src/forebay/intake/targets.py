"""The addresses that are answered without ASGI."""

from __future__ import annotations

import enum
from urllib.parse import unquote_to_bytes

import httptools

from forebay.errors import Rejection


class Target(enum.Enum):
    """An address of the hot path."""

    PING = "/ping"
    EVENT = "/events"
    BATCH = "/events/batch"


METHODS = {Target.PING: (b"GET", b"HEAD"), Target.EVENT: (b"POST",), Target.BATCH: (b"POST",)}

_TARGETS = {target.value.encode(): target for target in Target}


def resolve(url: bytes) -> tuple[Target | None, bytes]:
    """Return which of them a request is for, if any, and its query.

    Raises:
        Rejection: 400 for what is no address.
    """
    target = _TARGETS.get(url)
    if target is not None:
        return target, b""
    try:
        # Also the absolute form, which a server must accept (RFC 9112, section 3.2.2).
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        parsed = None
    if parsed is None or parsed.path is None:
        raise Rejection(400, "the address of the request is not valid")
    return _TARGETS.get(unquote_to_bytes(parsed.path)), parsed.query or b""
