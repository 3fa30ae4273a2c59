"""Moves every value out of a refused document that may be the cause: the rest fits the template's mapping. Pure.

For documents of clients' own forms, whose fields have types. OpenSearch refuses an event for a field that clashes with
one that it has added for another event, that is one too many, or whose name has no form. Which of them it was is not
looked for: a field that the template does not name is moved, and one that it names if its value is of another type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw

from forebay.own_indices import RECEIPT, UNINDEXED
from forebay.sinks.opensearch.moving import TERM_BYTES_MAX, Json, Mover, term_bytes

INTEGERS = range(-(2**31), 2**31)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STRICT_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(Z|[+-]\d\d:\d\d)", re.ASCII)


def move_misfits(document: dict[str, Json], fields: Mapping[str, Any], mover: Mover) -> None:
    """Move values out of an object whose fields have these mappings; fields of ours stay."""
    for name, value in list(document.items()):
        if name in (RECEIPT, UNINDEXED):
            continue
        with mover.below(name):
            field = fields.get(name)
            if field is None:
                mover.move(document, name, value)
            elif field.get("type", "object") == "object" and isinstance(value, dict):
                move_misfits(value, field.get("properties", {}), mover)
            elif field.get("type") == "date":
                _fit_time(document, name, value, mover)
            elif not _fits(value, field.get("type", "object")):
                mover.move(document, name, value)


def _fits(value: Json, kind: str) -> bool:
    """Return whether a value, or every element of an array, has the type of a field."""
    if value is None:
        return True
    if kind == "flat_object":
        return isinstance(value, dict)
    if isinstance(value, list):
        return all(_fits(element, kind) for element in value)
    if kind == "object" or isinstance(value, dict):
        return False
    if kind == "integer":
        return _is_integer(value)
    # A long text is no term, but it is cut into words.
    return kind == "text" or term_bytes(value) <= TERM_BYTES_MAX


def _is_integer(value: str | Raw | bool) -> bool:  # noqa: FBT001 - one of the values of JSON
    try:
        return not isinstance(value, bool) and int(float(_text(value))) in INTEGERS
    except (ValueError, OverflowError):
        return False


def _fit_time(document: dict[str, Json], name: str, value: Json, mover: Mover) -> None:
    """Write a time in the form that every index of UBI takes, and keep another form beside."""
    time = _read_time(value)
    if time is None:
        if value is not None:
            mover.move(document, name, value)
    elif time != value:
        document[name] = time
        mover.keep(value)


def _read_time(value: Json) -> str | None:
    """Return a time in the form `strict_date_time`, or None if it is none."""
    if not isinstance(value, str | Raw):
        return None
    text = _text(value)
    try:
        if "-" in text[1:]:
            time = datetime.fromisoformat(text)
            if _STRICT_TIME.fullmatch(text):
                return text
        else:
            time = _EPOCH + timedelta(milliseconds=float(text))
        time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: str | Raw) -> str:
    return value if isinstance(value, str) else bytes(value).decode()
