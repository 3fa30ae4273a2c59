"""Whether the events' index has, and the next one will get, the mapping that the template wants. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from forebay.findings import Finding, Level
from forebay.sinks.opensearch.template import NAME, TEMPLATE, VERSION

FIELDS_SHOWN_MAX = 5
UNINDEXED_KIND = "object that is not indexed"


def judge_template(what: str, templates: Any, index: str, *, is_put: bool) -> Iterator[Finding]:
    """Say whether the template is there, as new as this Forebay's, and the one that counts.

    `is_put` says whether the server puts it (FOREBAY_INDEX_TEMPLATE). Of the templates whose patterns fit an index,
    only the one with the highest priority counts
    (https://docs.opensearch.org/latest/im-plugin/index-templates/).
    """
    known = {item["name"]: item["index_template"] for item in templates["index_templates"]}
    ours = known.get(NAME)
    if ours is None:
        if is_put:
            yield Finding(Level.WARN, what, f"{NAME} is not there", "start the server, or `forebay index init`")
        else:
            text = f"{NAME} is not there and FOREBAY_INDEX_TEMPLATE=false: mappings come from another, or by guess"
            yield Finding(Level.WARN, what, text, "`forebay index init`, unless you have a template of your own")
        return
    version = int(ours.get("version") or 0)
    text = f"{NAME} is there, version {version}"
    if version < VERSION:
        yield Finding(Level.WARN, what, f"{text}; this Forebay has {VERSION}", "`forebay index init`")
    others = sorted(
        name
        for name, template in known.items()
        if _priority(template) > _priority(ours)
        and any(fnmatchcase(index, pattern) for pattern in template["index_patterns"])
    )
    if others:
        yield Finding(
            Level.FAIL,
            what,
            f"{NAME} does not count for {index}: {', '.join(others)} has a higher priority than {_priority(ours)}",
            "give the other narrower index_patterns or a lower priority",
        )
    elif version >= VERSION:
        yield Finding(Level.OK, what, text)


def judge_mapping(what: str, mappings: Any, index: str) -> Iterator[Finding]:
    """Say whether this month's index has the template's mapping; it cannot be changed in an index that is there.

    Behind an alias or a data stream of that name, each index is looked at.
    """
    if not mappings:
        yield Finding(Level.OK, what, f"{index} is not there yet")
        return
    found = [finding for name in sorted(mappings) for finding in _judge_index(what, mappings[name]["mappings"], name)]
    yield from found or [Finding(Level.OK, what, f"{index} has the template's mapping")]


def _judge_index(what: str, mapping: Any, index: str) -> Iterator[Finding]:
    clashes, missing = _compare(TEMPLATE["template"]["mappings"], mapping, "")
    advice = "see that the template counts, then reindex this month into a new index, or wait for the next month"
    if clashes:
        text = f"{index} has other types than the template: {_list(clashes)}; events may become dead letters"
        yield Finding(Level.FAIL, what, text, advice)
    elif missing:
        text = f"{index} lacks fields of the template: {_list(missing)}; they are kept and not found"
        yield Finding(Level.WARN, what, text, advice)


def _compare(wanted: Any, found: Any, prefix: str) -> tuple[list[str], list[str]]:
    """Return the fields whose types differ, and those that are not there."""
    clashes: list[str] = []
    missing: list[str] = []
    for name, field in (wanted.get("properties") or {}).items():
        there = (found.get("properties") or {}).get(name)
        if there is None:
            # A field that is not indexed is as good as none where others are not added by themselves.
            if _kind(field) != UNINDEXED_KIND:
                missing.append(prefix + name)
        elif _kind(field) != _kind(there):
            clashes.append(f"{prefix}{name} is {_kind(there)}, not {_kind(field)}")
        else:
            below = _compare(field, there, f"{prefix}{name}.")
            clashes += below[0]
            missing += below[1]
    return clashes, missing


def _kind(field: Any) -> str:
    return str(field.get("type", "object")) if field.get("enabled", True) else UNINDEXED_KIND


def _priority(template: Any) -> int:
    return int(template.get("priority") or 0)


def _list(names: list[str]) -> str:
    more = len(names) - FIELDS_SHOWN_MAX
    return ", ".join(names[:FIELDS_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
