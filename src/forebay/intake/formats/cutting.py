"""JSON text cut into its parts without being understood: a part that is no JSON costs nobody but itself.

Only strings, brackets and commas are known here. The faults of a part are found when it is decoded.
"""

from __future__ import annotations

import re

WHITE_SPACE = b" \t\n\r"
"""RFC 8259, section 2: less than Python takes for white space."""

STEPS_MAX = 200_000
"""Most steps that are taken for one text, each under a microsecond; a text that needs more is left whole. An event
takes one to three of them, and two more for each bracket in it that holds others."""

# Possessive, so that no way back is kept for each character of a long string.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'[\[{](?:[^"\[\]{}]++|%b)*+[\]}]' % _STRING
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|%b|%b)*+["\[\]{}]' % (_STRING, _FLAT), re.DOTALL).match
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|%b|%b)*+["\[\]{},]' % (_STRING, _FLAT), re.DOTALL).match
_KEY = re.compile(rb"[ \t\n\r]*(%b)[ \t\n\r]*:" % _STRING, re.DOTALL).match


class NotCut(Exception):
    """The text has no parts that can be told from one another."""


def cut_array(text: bytes) -> list[bytes]:
    """Return the elements of an array.

    Raises:
        NotCut: it is none, a bracket or a quotation mark is left open, an element is empty, or it needs too many steps.
    """
    return _cut(text.strip(WHITE_SPACE), b"[", b"]")


def cut_object(text: bytes) -> list[tuple[bytes, bytes]]:
    """Return the keys, as they are written, and the values of an object.

    Raises:
        NotCut: as of `cut_array`, or a field is not a key and a value.
    """
    fields = []
    for field in _cut(text.strip(WHITE_SPACE), b"{", b"}"):
        key = _KEY(field)
        if key is None:
            raise NotCut
        fields.append((key[1], field[key.end() :]))
    return fields


def _cut(text: bytes, opening: bytes, closing: bytes) -> list[bytes]:
    if not (text.startswith(opening) and text.endswith(closing)):
        raise NotCut
    ends = _ends(text)
    starts = [1, *(end + 1 for end in ends)]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=False)]
    if len(parts) == 1 and not parts[0].strip(WHITE_SPACE):
        return []
    if not all(part.strip(WHITE_SPACE) for part in parts):
        raise NotCut
    return parts


def _ends(text: bytes) -> list[int]:
    """Return the end of each part of a bracketed text: its commas and its last bracket."""
    ends: list[int] = []
    depth = 1
    place = 1
    for _ in range(STEPS_MAX):
        match = (_BETWEEN if depth == 1 else _INSIDE)(text, place)
        if match is None:
            break
        place = match.end()
        token = text[place - 1 : place]
        if token == b",":
            ends.append(place - 1)
        elif token in (b"[", b"{"):
            depth += 1
        elif token == b'"':
            break
        else:
            depth -= 1
            if depth == 0 and place == len(text):
                return [*ends, place - 1]
            if depth == 0:
                break
    raise NotCut
