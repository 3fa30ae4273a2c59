"""Whether each month is one index, within which alone OpenSearch keeps an `_id` unique. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from forebay.findings import Finding, Level
from forebay.sinks.months import month_of

PLACES_SHOWN_MAX = 5
CONSEQUENCE = "an event that is sent or delivered again after a rollover is there twice"


def judge_uniqueness(what: str, places: Any, templates: Any, environment: str, index: str) -> Iterator[Finding]:
    """Say which months are no single index, and whether the next one will be none.

    `places` is the answer of `_resolve/index`. A data stream is told of before its first rollover, too: that is what it
    is made for.
    """
    kinds = {stream["name"]: "a data stream" for stream in places["data_streams"]}
    for alias in places["aliases"]:
        if len(alias["indices"]) > 1:
            kinds[alias["name"]] = f"an alias of {len(alias['indices'])} indices"
    # The pattern that was asked for fits the months of other environments, too.
    found = [f"{name} is {kind}" for name, kind in sorted(kinds.items()) if month_of(name, environment)]
    if found:
        advice = "reindex it into one index of that name, and see that nothing rolls that over"
        yield Finding(Level.WARN, what, f"{_list(found)}: {CONSEQUENCE}", advice)
    maker = _find_template(templates, index)
    if maker and maker["index_template"].get("data_stream") is not None:
        name = maker["name"]
        text = f"the template {name} makes a data stream of a month: {CONSEQUENCE}"
        yield Finding(Level.WARN, what, text, f"take data_stream out of {name}, or give it narrower index_patterns")
    elif not found:
        yield Finding(Level.OK, what, "each month is one index, in which an id is unique")


def _find_template(templates: Any, index: str) -> Any:
    """Return the template that an index is made by: of those that fit, the one with the highest priority."""
    fitting = [
        item
        for item in templates["index_templates"]
        if any(fnmatchcase(index, pattern) for pattern in item["index_template"]["index_patterns"])
    ]
    return max(fitting, key=lambda item: int(item["index_template"].get("priority") or 0), default=None)


def _list(texts: list[str]) -> str:
    more = len(texts) - PLACES_SHOWN_MAX
    return ", ".join(texts[:PLACES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
