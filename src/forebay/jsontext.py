"""JSON for output: every number as it came, and no character that a terminal takes for a command."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import Raw

# C0, DEL and C1; characters that change the direction of text or end a line; halves of a surrogate pair.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_unsafe(text: str) -> str:
    """Return text with all characters escaped that a terminal takes for a command; JSON keeps its meaning."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def read_json(text: bytes) -> Raw:
    """Return JSON undecoded and on one line, once it has been checked.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    text.decode()
    return Raw(msgspec.json.format(text, indent=0))


def write_line(value: Any) -> str:
    """Return a value as JSON on one line; `Raw` in it stays as it was written, since no float holds every number."""
    return escape_unsafe(_write(value))


def write_indented(value: Any) -> list[str]:
    """Return a value as indented JSON, line by line."""
    return msgspec.json.format(write_line(value), indent=2).split("\n")


def _write(value: Any) -> str:
    if isinstance(value, Raw):
        return msgspec.json.format(bytes(value), indent=0).decode("utf-8", "replace")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_write(name)}: {_write(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_write, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
