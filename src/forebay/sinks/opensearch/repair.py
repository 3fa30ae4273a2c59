"""Rewrites a refused event in a form that OpenSearch takes. Pure.

Intake takes any JSON. OpenSearch does not: an object may have a key only once, a number may have 1,000 digits, and each
value of a `flat_object` becomes a term with its path, and a term has a limit. Few events are beyond these limits. So
intake does not check them, and an event is repaired once OpenSearch has refused it.

One kind of event is not refused: OpenSearch repeats the path for each value under it, and runs out of memory over some
thousand values under a long key. Such an event must be repaired before it is sent (`may_overwhelm`).
"""

from __future__ import annotations

import json
from typing import TypeAlias

import msgspec
from msgspec import Raw

from forebay.model import Entry, entry_document
from forebay.sinks.opensearch.template import TEMPLATE, UNINDEXED

Json: TypeAlias = dict[str, "Json"] | list["Json"] | str | Raw | bool | None
"""Decoded JSON; a number is `Raw`, in the characters in which it was written."""

DIGITS_MAX = 1_000
"""Most digits of a number, with those of its exponent: `StreamReadConstraints` of Jackson, OpenSearch's parser."""

TERM_BYTES_MAX = 32_766
"""The longest term: `IndexWriter.MAX_TERM_LENGTH` of Lucene."""

PATH_BYTES_MAX = TERM_BYTES_MAX // 2
"""The value of a longer path is taken out as a whole. Piece by piece, each with its path, many values under a long key
would make a document a thousand times as large."""

TERMS_BYTES_MAX = 16 * 1024 * 1024
"""Most bytes of all terms of a field. An OpenSearch with 512 MB of heap takes 32 MB and ends over 64."""

VALUE_BYTES = 64
"""The bytes that OpenSearch needs for a value beside its path and its characters."""

OVERWHELMING_BYTES_MIN = 4_000
"""No smaller entry can overwhelm OpenSearch, were it all commas: their number times its length is below the limit."""

_INFO = TEMPLATE["template"]["mappings"]["properties"]["event_info"]["properties"]
_FLAT_FIELDS = [name for name, field in _INFO.items() if field["type"] == "flat_object"]


def repair(entry: Entry) -> Entry:
    """Return an entry with the same action and a document that OpenSearch takes.

    - Of a key that stands more than once in an object, the last one is kept.
    - A number that is too long becomes text with the same characters.
    - A value that is too long to be a term, or has too long a path, is moved to `unindexed`. Each element there has its
      `path`, a JSON pointer (RFC 6901) into the document, and the `value`; an object or array is kept as text, in
      `json`, since a key in it may be longer than any that OpenSearch reads. In an array it leaves a `null`.
    - A whole field is moved if the sum of its terms is too large.

    An entry that needs no repair, or cannot be read, is returned itself.
    """
    reader = _Reader()
    try:
        document = reader.read(entry_document(entry))
        moved = _move_long(document)
        if not (reader.has_changed or moved):
            return entry
        if moved:
            document[UNINDEXED] = moved
        return entry[: entry.index(b"\n") + 1] + msgspec.json.encode(document) + b"\n"
    except (ValueError, RecursionError):
        return entry


def may_overwhelm(entry: Entry) -> bool:
    """Return whether an entry may use up OpenSearch's memory; quick, and it may be wrong: `repair` finds out.

    An entry has at most one value more than it has commas, and no path is longer than the entry.
    """
    return (len(entry) + VALUE_BYTES) * (entry.count(b",") + 1) > TERMS_BYTES_MAX


class _Reader:
    """Decodes a document, and remembers whether that changed it."""

    def __init__(self) -> None:
        self.has_changed = False

    def read(self, text: bytes) -> dict[str, Json]:
        # Not msgspec: it does not report a repeated key, and does not keep the characters of a number.
        document = json.loads(
            text, object_pairs_hook=self._read_object, parse_int=self._read_number, parse_float=self._read_number
        )
        if not isinstance(document, dict):
            raise ValueError("not an object")  # noqa: TRY004 - as much of a fault in the text as one in its syntax
        return document

    def _read_object(self, pairs: list[tuple[str, Json]]) -> Json:
        fields = dict(pairs)
        self.has_changed |= len(fields) < len(pairs)
        return fields

    def _read_number(self, text: str) -> Json:
        if len(text) > DIGITS_MAX and sum(map(str.isdigit, text)) > DIGITS_MAX:
            self.has_changed = True
            return text
        return Raw(text.encode())


def _move_long(document: dict[str, Json]) -> list[Json]:
    """Take the values that are too long to be terms out of a document; return them as elements of `unindexed`."""
    mover = _Mover()
    info = document.get("event_info")
    if isinstance(info, dict):
        for name in _FLAT_FIELDS:
            mover.move_from(info, name)
    return mover.moved


class _Mover:
    """Takes values out of a document and collects them."""

    def __init__(self) -> None:
        self.moved: list[Json] = []
        self._path: list[str] = []

    def move_from(self, info: dict[str, Json], name: str) -> None:
        field = info.get(name)
        if not isinstance(field, dict):
            return
        self._path = ["event_info", name]
        if _terms_bytes(field, len(f"event_info.{name}")) > TERMS_BYTES_MAX:
            self._move(info, name, field)
        else:
            # The longest of its terms is `event_info.param.event_info.param.key=value`: the name stands there twice.
            self._search(field, TERM_BYTES_MAX - 2 * len(f"event_info.{name}.") + 1)

    def _search(self, node: dict[str, Json] | list[Json], room_bytes: int) -> None:
        """Take out values that are too long; the path to this node leaves them `room_bytes`."""
        items: list[tuple[str | int, Json]] = list(node.items() if isinstance(node, dict) else enumerate(node))
        for key, value in items:
            left_bytes = room_bytes - _key_bytes(key)
            self._path.append(str(key))
            if isinstance(value, dict | list) and left_bytes >= TERM_BYTES_MAX - PATH_BYTES_MAX:
                self._search(value, left_bytes)
            elif not _fits(value, left_bytes):
                self._move(node, key, value)
            self._path.pop()

    def _move(self, node: dict[str, Json] | list[Json], key: str | int, value: Json) -> None:
        if isinstance(node, dict):
            del node[str(key)]
        else:
            node[int(key)] = None
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self._path)
        if isinstance(value, dict | list):
            self.moved.append({"path": pointer, "json": msgspec.json.encode(value).decode()})
        else:
            self.moved.append({"path": pointer, "value": value})


def _key_bytes(key: str | int) -> int:
    """Return the bytes that a key adds to a path: an index of an array adds none."""
    return len(f".{key}".encode()) if isinstance(key, str) else 0


def _terms_bytes(value: Json, path_bytes: int) -> int:
    """Return the bytes that OpenSearch needs for all values under a path of this length."""
    if isinstance(value, dict):
        return sum(_terms_bytes(part, path_bytes + _key_bytes(key)) for key, part in value.items())
    if isinstance(value, list):
        return sum(_terms_bytes(part, path_bytes) for part in value)
    return path_bytes + _term_bytes(value) + VALUE_BYTES


def _fits(value: Json, room_bytes: int) -> bool:
    """Return whether each value fits into a term with its path, `path=value`, and the path alone too."""
    if isinstance(value, dict):
        return room_bytes >= 0 and all(_fits(part, room_bytes - _key_bytes(key)) for key, part in value.items())
    if isinstance(value, list):
        return room_bytes >= 0 and all(_fits(part, room_bytes) for part in value)
    return room_bytes >= _term_bytes(value)


def _term_bytes(value: str | Raw | bool | None) -> int:  # noqa: FBT001 - one of the values of JSON
    if value is None:
        return 0
    if isinstance(value, str):
        return len(f"={value}".encode())
    return len(b"=") + len(msgspec.json.encode(value))
