"""Rewrites a refused event in a form that OpenSearch takes. Pure.

Intake takes any JSON. OpenSearch does not: an object may have a key only once, a number may have 1,000 digits, and each
value of a `flat_object` becomes a term with its path, and a term has a limit. Few events are beyond these limits. So
intake does not check them, and an event is repaired once OpenSearch has refused it.

One kind of event is not refused: OpenSearch repeats the path for each value under it, and runs out of memory over some
thousand values under a long key. Such an event must be repaired before it is sent (`may_overwhelm`).
"""

from __future__ import annotations

import json

import msgspec
from msgspec import Raw

from forebay.model import Entry, entry_document, entry_index
from forebay.own_indices import UNINDEXED, has_own_documents
from forebay.sinks.opensearch.fitting import move_misfits
from forebay.sinks.opensearch.moving import TERMS_BYTES_MAX, VALUE_BYTES, Json, Mover
from forebay.sinks.opensearch.template import TEMPLATE
from forebay.sinks.opensearch.ubi_templates import UBI_TEMPLATES

DIGITS_MAX = 1_000
"""Most digits of a number, with those of its exponent: `StreamReadConstraints` of Jackson, OpenSearch's parser."""

OVERWHELMING_BYTES_MIN = 4_000
"""No smaller entry can overwhelm OpenSearch, were it all commas: their number times its length is below the limit."""

_INFO = TEMPLATE["template"]["mappings"]["properties"]["event_info"]["properties"]
_FLAT_FIELDS = [name for name, field in _INFO.items() if field["type"] == "flat_object"]


def repair(entry: Entry, *, is_refused: bool = False) -> Entry:
    """Return an entry with the same action and a document that OpenSearch takes.

    - Of a key that stands more than once in an object, the last one is kept.
    - A number that is too long becomes text with the same characters.
    - A value that is too long to be a term, or has too long a path, is moved to `unindexed` (`moving.py`).
    - A whole field is moved if the sum of its terms is too large.
    - Out of a document of a form of its own, if it is refused, every value is moved that may be the cause.

    An entry that needs no repair, or cannot be read, is returned itself.
    """
    reader = _Reader()
    index = entry_index(entry)
    mover = Mover(is_all_text=has_own_documents(index))
    try:
        document = reader.read(entry_document(entry))
        if has_own_documents(index):
            _move_own(document, index, mover, is_refused=is_refused)
        else:
            _move_long(document, mover)
        if not (reader.has_changed or mover.moved):
            return entry
        if mover.moved:
            kept = document.get(UNINDEXED)
            document[UNINDEXED] = [*(kept if isinstance(kept, list) else ()), *mover.moved]
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


def _move_long(document: dict[str, Json], mover: Mover) -> None:
    """Take the values that are too long to be terms out of a document."""
    info = document.get("event_info")
    if isinstance(info, dict):
        with mover.below("event_info"):
            for name in _FLAT_FIELDS:
                mover.move_long(info, name)


def _move_own(document: dict[str, Json], index: str, mover: Mover, *, is_refused: bool) -> None:
    """Take out of a document of a form of its own the values that are too long, or do not fit."""
    fields = UBI_TEMPLATES[index].body["template"]["mappings"]["properties"]
    if is_refused:
        move_misfits(document, fields, mover)
    for name in [name for name, field in fields.items() if field.get("type") == "flat_object"]:
        mover.move_long(document, name)
