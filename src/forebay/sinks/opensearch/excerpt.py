"""What a foreign answer says, on one short line that a person can read. Pure."""

from __future__ import annotations

import re

CHARS_MAX = 300

# A proxy, or what answers in the place of OpenSearch, may repeat the request's head.
_CREDENTIALS = re.compile(r"(?i)((?:authorization|security-token)[\"']?\s*[:=]\s*[\"']?)[^\"'<>]+|(//)[^/\s\"'<>]*@")


def excerpt(body: bytes) -> str:
    """Return the first characters of a body on one line, without credentials."""
    text = " ".join(body[: 4 * CHARS_MAX].decode("utf-8", "replace").split())
    return _CREDENTIALS.sub(r"\1\2***", text)[:CHARS_MAX]
