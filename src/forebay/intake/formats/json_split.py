"""JSON text without decoding: split into its parts, so that a part that is not JSON harms no other, and its depth.

Only strings, brackets and commas matter here. The errors inside a part are found when it is decoded.
"""

from __future__ import annotations

import re

from forebay.model import PARAM_DEPTH_MAX

ARRAY = ord("[")

WHITE_SPACE = b" \t\n\r"
"""RFC 8259, section 2; Python's white space is more."""

STEPS_MAX = 200_000
"""Most steps for one text, each under a microsecond; a text that needs more is not split. An event needs one to three,
and two more for each bracket with brackets inside."""

# Possessive, so that no backtracking is stored for each character of a long string.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'[\[{](?:[^"\[\]{}]++|%b)*+[\]}]' % _STRING
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|%b|%b)*+["\[\]{}]' % (_STRING, _FLAT), re.DOTALL).match
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|%b|%b)*+["\[\]{},]' % (_STRING, _FLAT), re.DOTALL).match
_BRACKETS = re.compile(rb"%b|[\[\]{}]" % _STRING)
_KEY = re.compile(rb"[ \t\n\r]*(%b)[ \t\n\r]*:" % _STRING, re.DOTALL).match


class NotSplit(Exception):
    """The text cannot be split."""


def split_array(text: bytes) -> list[bytes]:
    """Return the elements of an array.

    Raises:
        NotSplit: it is not an array, an element is empty, a bracket or string is open, or it needs too many steps.
    """
    return _split(text.strip(WHITE_SPACE), b"[", b"]")


def split_object(text: bytes) -> list[tuple[bytes, bytes]]:
    """Return the keys of an object, as they are written, and their values.

    Raises:
        NotSplit: as `split_array`, or a field is not a key and a value.
    """
    fields = []
    for field in _split(text.strip(WHITE_SPACE), b"{", b"}"):
        key = _KEY(field)
        if key is None:
            raise NotSplit
        fields.append((key[1], field[key.end() :]))
    return fields


def _split(text: bytes, opening: bytes, closing: bytes) -> list[bytes]:
    if not (text.startswith(opening) and text.endswith(closing)):
        raise NotSplit
    ends = _ends(text)
    starts = [1, *(end + 1 for end in ends)]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=False)]
    if len(parts) == 1 and not parts[0].strip(WHITE_SPACE):
        return []
    if not all(part.strip(WHITE_SPACE) for part in parts):
        raise NotSplit
    return parts


def _ends(text: bytes) -> list[int]:
    """Return the position of the end of each part: of each comma between parts, and of the last bracket."""
    ends: list[int] = []
    depth = 1
    position = 1
    for _ in range(STEPS_MAX):
        match = (_BETWEEN if depth == 1 else _INSIDE)(text, position)
        if match is None:
            break
        position = match.end()
        token = text[position - 1 : position]
        if token == b",":
            ends.append(position - 1)
        elif token in (b"[", b"{"):
            depth += 1
        elif token == b'"':
            break
        else:
            depth -= 1
            if depth == 0 and position == len(text):
                return [*ends, position - 1]
            if depth == 0:
                break
    raise NotSplit


def is_too_deep(text: bytes) -> bool:
    """Return whether a JSON value nests deeper than `PARAM_DEPTH_MAX`."""
    # The shortest level of all is `[]`, and that of an object is `{"":}`. Most texts are shorter than so many levels.
    if len(text) <= 2 * PARAM_DEPTH_MAX or (len(text) <= 5 * PARAM_DEPTH_MAX and ARRAY not in text):
        return False
    if text.count(b"{") + text.count(b"[") <= PARAM_DEPTH_MAX:
        return False
    depth = 0
    for match in _BRACKETS.finditer(text):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
            if depth > PARAM_DEPTH_MAX:
                return True
        elif token in (b"}", b"]"):
            depth -= 1
    return False
