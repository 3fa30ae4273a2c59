"""Checks for blocks on the cluster, and on the months that most events come for."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct, field

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok
from forebay.doctor.opensearch.cluster_settings import read_settings

CLUSTER_BLOCKS = {
    "read_only": "nothing can be written",
    "read_only_allow_delete": "nothing can be written",
    "create_index": "no month can begin",
}
"""The blocks of a cluster, and their consequences."""

INDEX_BLOCKS = {
    "read_only_allow_delete": "the disk is, or was, full",
    "read_only": "somebody set it",
    "write": "somebody set it",
}
"""The blocks under which an index takes no document, and their causes: OpenSearch sets the first one by itself."""


class _Index(Struct):
    settings: dict[str, Any] = field(default_factory=dict)


def check_cluster(context: Context) -> Iterator[Finding]:
    """Check whether the cluster refuses all documents, or the index that the next events need."""
    settings, index = read_settings(context), context.index()
    found = [
        fail(
            f"cluster.blocks.{block} is set: {consequence}",
            f"set cluster.blocks.{block} to null once its cause is gone (a full disk, or somebody's decision)",
        )
        for block, consequence in CLUSTER_BLOCKS.items()
        if settings.get(f"cluster.blocks.{block}") == "true"
    ]
    if not _creates(str(settings.get("action.auto_create_index", "true")), index):
        text = f"action.auto_create_index does not let {index} be made"
        found.append(fail(text, "let it have +events_*, or make each month's index by hand"))
    yield from found or [ok("no block, and months are made when they begin")]


def check_months(context: Context) -> Iterator[Finding]:
    """Check the last month and this one; an older one may be closed on purpose."""
    indices = context.answers().read("blocks", dict[str, _Index])
    months = (context.index(-1), context.index())
    found = [
        fail(
            f"{month} takes no events: index.blocks.{block} ({cause})",
            f"free the disk if it is full, then set index.blocks.{block} of {month} to null",
        )
        for month in months
        for block, cause in INDEX_BLOCKS.items()
        if month in indices and indices[month].settings.get(f"index.blocks.{block}") == "true"
    ]
    yield from found or [ok(f"none on {' and '.join(months)}")]


def _creates(auto_create_index: str, index: str) -> bool:
    """Return whether an index may be made by its first document: true, false, or patterns of which the first counts."""
    if auto_create_index in ("true", "false"):
        return auto_create_index == "true"
    for item in auto_create_index.split(","):
        pattern = item.strip()
        if fnmatchcase(index, pattern.lstrip("+-")):
            return not pattern.startswith("-")
    return False
