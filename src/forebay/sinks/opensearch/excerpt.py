"""Shortens the text of an answer, to be stored or shown on one line. Pure."""

from __future__ import annotations

import re

CHARS_MAX = 300
CUT = " … (cut)"

# A proxy, or another server that answers instead of OpenSearch, may repeat the request's head.
_CREDENTIALS = re.compile(r"(?i)((?:authorization|security-token)[\"']?\s*[:=]\s*[\"']?)[^\"'<>]+|(//)[^/\s\"'<>]*@")


def excerpt(body: bytes) -> str:
    """Return the first characters of a body on one line, without credentials."""
    text = " ".join(body[: 4 * CHARS_MAX].decode("utf-8", "replace").split())
    return _CREDENTIALS.sub(r"\1\2***", text)[:CHARS_MAX]


def cut(text: str, bytes_max: int) -> str:
    """Shorten text to `bytes_max` bytes; text that was longer ends with a note of that."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= bytes_max:
        return text
    return encoded[: bytes_max - len(CUT.encode())].decode("utf-8", "ignore") + CUT
