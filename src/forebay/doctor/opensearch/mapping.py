"""Checks whether this month's index has the template's mapping; it cannot be changed in an index that is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, enumerate_some, fail, ok, warn
from forebay.sinks.opensearch.template import TEMPLATE

UNINDEXED_KIND = "object that is not indexed"


class _Index(Struct):
    mappings: dict[str, Any] = field(default_factory=dict)


def check(context: Context) -> Iterator[Finding]:
    """Compare the mapping of each index behind this month's name: that may be an alias or a data stream."""
    indices, month = context.answers().read("mapping", dict[str, _Index]), context.index()
    if not indices:
        yield ok(f"{month} is not there yet")
        return
    found = [finding for name in sorted(indices) for finding in _check_index(indices[name].mappings, name)]
    yield from found or [ok(f"{month} has the template's mapping")]


def _check_index(mapping: dict[str, Any], index: str) -> Iterator[Finding]:
    clashes, missing = _compare(TEMPLATE["template"]["mappings"], mapping, "")
    advice = "see that the template counts, then reindex this month into a new index, or wait for the next month"
    if clashes:
        yield fail(
            f"{index} has other types than the template: {enumerate_some(clashes)}; events may become dead letters",
            advice,
        )
    elif missing:
        yield warn(
            f"{index} lacks fields of the template: {enumerate_some(missing)}; they are kept and not found", advice
        )


def _compare(wanted: Any, found: Any, prefix: str) -> tuple[list[str], list[str]]:
    """Return the fields whose types differ, and those that are missing."""
    clashes: list[str] = []
    missing: list[str] = []
    for name, wanted_field in (wanted.get("properties") or {}).items():
        found_field = (found.get("properties") or {}).get(name)
        if found_field is None:
            # A field that is not indexed is as good as none if others are not added by themselves.
            if _kind(wanted_field) != UNINDEXED_KIND:
                missing.append(prefix + name)
        elif _kind(wanted_field) != _kind(found_field):
            clashes.append(f"{prefix}{name} is {_kind(found_field)}, not {_kind(wanted_field)}")
        else:
            below = _compare(wanted_field, found_field, f"{prefix}{name}.")
            clashes += below[0]
            missing += below[1]
    return clashes, missing


def _kind(mapping: Any) -> str:
    return str(mapping.get("type", "object")) if mapping.get("enabled", True) else UNINDEXED_KIND
