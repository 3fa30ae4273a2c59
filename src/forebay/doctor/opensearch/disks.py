"""Checks the room on the nodes' disks before the level at which OpenSearch stops writing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct, field

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok, warn
from forebay.doctor.opensearch.cluster_settings import read_settings

PREFIX = "cluster.routing.allocation.disk"
UNITS = ("b", "kb", "mb", "gb", "tb")


class _Node(Struct):
    """A line of `_cat/allocation`: numbers come as text, and the unassigned shards have no disk."""

    name: str = field(name="node")
    used_percent: float | None = field(name="disk.percent", default=None)
    free_bytes: float | None = field(name="disk.avail", default=None)


def check(context: Context) -> Iterator[Finding]:
    """Compare the nodes' disks with the watermarks."""
    nodes = [node for node in context.answers().read("allocation", list[_Node]) if node.used_percent is not None]
    settings = read_settings(context)
    if settings.get(f"{PREFIX}.threshold_enabled") == "false":
        yield ok("; ".join(map(_describe, nodes)) + "; no watermarks are in force")
        return
    for node in nodes:
        if _is_beyond(node, settings.get(f"{PREFIX}.watermark.flood_stage")):
            yield fail(
                f"{_describe(node)}: over the flood stage, its indices take no events",
                "free disk space: `forebay index prune`, or a larger disk; OpenSearch then goes on by itself",
            )
        elif _is_beyond(node, settings.get(f"{PREFIX}.watermark.high")):
            yield warn(
                f"{_describe(node)}: over the high watermark; at the flood stage it stops taking events",
                "free disk space: `forebay index prune`, or a larger disk",
            )
        else:
            yield ok(_describe(node))


def _describe(node: _Node) -> str:
    return f"{node.name}: {node.used_percent:.0f}% of its disk used, {int(node.free_bytes or 0) >> 30} GiB free"


def _is_beyond(node: _Node, watermark: str | None) -> bool:
    """Return whether a disk is fuller than a watermark: `90%` or `0.9` used, or `500mb` left."""
    match = re.fullmatch(r"([0-9.]+)\s*(%|b|kb|mb|gb|tb)?", watermark or "", re.IGNORECASE)
    if not match:
        return False
    value, unit = float(match[1]), (match[2] or "").lower()
    if unit in ("%", ""):
        return (node.used_percent or 0) >= (value if unit else value * 100)
    return (node.free_bytes or 0) <= value * float(1024 ** UNITS.index(unit))
