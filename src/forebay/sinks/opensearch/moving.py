"""Moves values out of a document that OpenSearch cannot index, into the elements of its field `unindexed`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import msgspec
from msgspec import Raw

Json: TypeAlias = dict[str, "Json"] | list["Json"] | str | Raw | bool | None
"""Decoded JSON; a number is `Raw`, in the characters in which it was written."""

TERM_BYTES_MAX = 32_766
"""The longest term: `IndexWriter.MAX_TERM_LENGTH` of Lucene."""

PATH_BYTES_MAX = TERM_BYTES_MAX // 2
"""The value of a longer path is taken out as a whole. Piece by piece, each with its path, many values under a long key
would make a document a thousand times as large."""

TERMS_BYTES_MAX = 16 * 1024 * 1024
"""Most bytes of all terms of a field. An OpenSearch with 512 MB of heap takes 32 MB and ends over 64."""

VALUE_BYTES = 64
"""The bytes that OpenSearch needs for a value beside its path and its characters."""


class Mover:
    """Takes values out of a document and collects them.

    Attributes:
        moved: elements of `unindexed`. Each has its `path`, a JSON pointer (RFC 6901) into the document, and the
            `value`; an object or array is kept as text, in `json`, since a key in it may be longer than any that
            OpenSearch reads.
        is_all_text: whether every value is kept as text: in an index without the field, OpenSearch makes one of it.
    """

    def __init__(self, *, is_all_text: bool = False) -> None:
        self.moved: list[Json] = []
        self._is_all_text = is_all_text
        self._path: list[str] = []

    @contextmanager
    def below(self, key: str | int) -> Iterator[None]:
        """Go one level down, to the value of a key."""
        self._path.append(str(key))
        try:
            yield
        finally:
            self._path.pop()

    def move_long(self, node: dict[str, Json], name: str) -> None:
        """Take the values that are too long to be terms out of a `flat_object`, or all of it if they are too many."""
        field = node.get(name)
        if not isinstance(field, dict):
            return
        with self.below(name):
            full_name = ".".join(self._path)
            if _terms_bytes(field, len(full_name)) > TERMS_BYTES_MAX:
                self.move(node, name, field)
            else:
                # Its longest term is `event_info.param.event_info.param.key=value`: the name stands there twice.
                self._search(field, TERM_BYTES_MAX - 2 * len(f"{full_name}.") + 1)

    def _search(self, node: dict[str, Json] | list[Json], room_bytes: int) -> None:
        """Take out values that are too long; the path to this node leaves them `room_bytes`."""
        items: list[tuple[str | int, Json]] = list(node.items() if isinstance(node, dict) else enumerate(node))
        for key, value in items:
            left_bytes = room_bytes - _key_bytes(key)
            with self.below(key):
                if isinstance(value, dict | list) and left_bytes >= TERM_BYTES_MAX - PATH_BYTES_MAX:
                    self._search(value, left_bytes)
                elif not _fits(value, left_bytes):
                    self.move(node, key, value)

    def move(self, node: dict[str, Json] | list[Json], key: str | int, value: Json) -> None:
        """Take out the value of the key at which we are. In an array it leaves a `null`."""
        if isinstance(node, dict):
            del node[str(key)]
        else:
            node[int(key)] = None
        self.keep(value)

    def keep(self, value: Json) -> None:
        """Collect the value of the key at which we are."""
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self._path)
        if self._is_all_text or isinstance(value, dict | list):
            self.moved.append({"path": pointer, "json": msgspec.json.encode(value).decode()})
        else:
            self.moved.append({"path": pointer, "value": value})


def term_bytes(value: str | Raw | bool | None) -> int:  # noqa: FBT001 - one of the values of JSON
    """Return the bytes of a value as a term, behind its path."""
    if value is None:
        return 0
    if isinstance(value, str):
        return len(f"={value}".encode())
    return len(b"=") + len(msgspec.json.encode(value))


def _key_bytes(key: str | int) -> int:
    """Return the bytes that a key adds to a path: an index of an array adds none."""
    return len(f".{key}".encode()) if isinstance(key, str) else 0


def _terms_bytes(value: Json, path_bytes: int) -> int:
    """Return the bytes that OpenSearch needs for all values under a path of this length."""
    if isinstance(value, dict):
        return sum(_terms_bytes(part, path_bytes + _key_bytes(key)) for key, part in value.items())
    if isinstance(value, list):
        return sum(_terms_bytes(part, path_bytes) for part in value)
    return path_bytes + term_bytes(value) + VALUE_BYTES


def _fits(value: Json, room_bytes: int) -> bool:
    """Return whether each value fits into a term with its path, `path=value`, and the path alone too."""
    if isinstance(value, dict):
        return room_bytes >= 0 and all(_fits(part, room_bytes - _key_bytes(key)) for key, part in value.items())
    if isinstance(value, list):
        return room_bytes >= 0 and all(_fits(part, room_bytes) for part in value)
    return room_bytes >= term_bytes(value)
