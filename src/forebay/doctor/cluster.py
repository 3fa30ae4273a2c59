"""What answers about the cluster mean for the events: how it is, its disks, its blocks, its limits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from forebay.findings import Finding, Level

FLAT_OBJECT_SINCE = (2, 7)
"""The template's `param` needs `flat_object`
(https://docs.opensearch.org/latest/mappings/supported-field-types/flat-object/)."""

HANGS_ON_ZSTD = (2, 19, 0)
"""Asked for an answer in zstd it never gives one (opensearch-project/OpenSearch#17339)."""

SHARDS_WARN_SHARE = 0.9
BLOCKS = ("read_only_allow_delete", "read_only", "write")
"""The blocks of an index under which it takes no document, the one that OpenSearch sets by itself first."""


def judge_version(what: str, root: Any) -> Finding:
    """Say whether what answers at an address is an OpenSearch that can be delivered to."""
    number = str(root["version"]["number"])
    if root["version"].get("distribution") != "opensearch":
        return Finding(Level.FAIL, what, f"not OpenSearch, version {number} of another", "correct OPEN_SEARCH_DNS")
    parts = tuple(int(part) for part in re.findall(r"\d+", number)[:3])
    if parts < FLAT_OBJECT_SINCE:
        return Finding(Level.FAIL, what, f"OpenSearch {number} has no flat_object", "use OpenSearch 2.7 or later")
    if parts == HANGS_ON_ZSTD:
        text = f"OpenSearch {number} hangs when it is asked for zstd; Forebay never asks for it, others may"
        return Finding(Level.WARN, what, text, "use a later version")
    return Finding(Level.OK, what, f"OpenSearch {number}")


def judge_health(what: str, health: Any) -> Iterator[Finding]:
    """Say whether the cluster has all of its shards."""
    status, nodes, unassigned = health["status"], health["number_of_nodes"], health["unassigned_shards"]
    text = f"{status}, {nodes} nodes, {unassigned} shards unassigned"
    if status == "green":
        yield Finding(Level.OK, what, text)
    elif status == "yellow":
        yield Finding(
            Level.WARN,
            what,
            f"{text}: events are taken, and copies of them are missing",
            "add a node, or set index.number_of_replicas to 0 where there is only one",
        )
    else:
        yield Finding(
            Level.FAIL, what, f"{text}: some indices take nothing", "GET /_cluster/allocation/explain says why"
        )


def judge_disks(what: str, allocation: Any, settings: Any) -> Iterator[Finding]:
    """Say how near the nodes' disks are to where OpenSearch stops writing."""
    known = flatten(settings)
    prefix = "cluster.routing.allocation.disk"
    if known.get(f"{prefix}.threshold_enabled") == "false":
        yield Finding(Level.OK, what, "; ".join(map(_disk, _with_disk(allocation))) + "; no watermarks are in force")
        return
    for row in _with_disk(allocation):
        if _is_beyond(row, known.get(f"{prefix}.watermark.flood_stage")):
            yield Finding(
                Level.FAIL,
                what,
                f"{_disk(row)}: over the flood stage, its indices take no events",
                "free disk space: `forebay index prune`, or a larger disk; OpenSearch then goes on by itself",
            )
        elif _is_beyond(row, known.get(f"{prefix}.watermark.high")):
            yield Finding(
                Level.WARN,
                what,
                f"{_disk(row)}: over the high watermark; at the flood stage it stops taking events",
                "free disk space: `forebay index prune`, or a larger disk",
            )
        else:
            yield Finding(Level.OK, what, _disk(row))


def judge_cluster_settings(what: str, settings: Any, index: str) -> Iterator[Finding]:
    """Say whether the cluster as a whole refuses documents, or the index that the next events need."""
    known = flatten(settings)
    found = False
    for block, consequence in (
        ("read_only", "nothing can be written"),
        ("read_only_allow_delete", "nothing can be written"),
        ("create_index", "no month can begin"),
    ):
        if known.get(f"cluster.blocks.{block}") == "true":
            found = True
            advice = f"set cluster.blocks.{block} to null once its cause is gone (a full disk, or somebody's decision)"
            yield Finding(Level.FAIL, what, f"cluster.blocks.{block} is set: {consequence}", advice)
    if not _creates(known.get("action.auto_create_index", "true"), index):
        found = True
        yield Finding(
            Level.FAIL,
            what,
            f"action.auto_create_index does not let {index} be made",
            "let it have +events_*, or make each month's index by hand",
        )
    if not found:
        yield Finding(Level.OK, what, "no block, and months are made when they begin")


def judge_blocks(what: str, settings: Any, months: tuple[str, ...]) -> Iterator[Finding]:
    """Say which of the months that most events come for take none; an older one may be closed on purpose."""
    found = False
    for index in months:
        known = flatten((settings.get(index) or {}).get("settings") or {})
        for block in BLOCKS:
            if known.get(f"index.blocks.{block}") == "true":
                found = True
                cause = "the disk is, or was, full" if block == BLOCKS[0] else "somebody set it"
                yield Finding(
                    Level.FAIL,
                    what,
                    f"{index} takes no events: index.blocks.{block} ({cause})",
                    f"free the disk if it is full, then set index.blocks.{block} of {index} to null",
                )
    if not found:
        yield Finding(Level.OK, what, f"none on {' and '.join(months)}")


def judge_shards(what: str, health: Any, settings: Any) -> Iterator[Finding]:
    """Say whether the cluster has room for the next month's shards."""
    per_node = int(flatten(settings)["cluster.max_shards_per_node"])
    room = per_node * int(health["number_of_data_nodes"])
    there = sum(int(health[f"{state}_shards"]) for state in ("active", "initializing", "unassigned"))
    text = f"{there} shards of {room} (cluster.max_shards_per_node {per_node})"
    advice = "delete old indices (`forebay index prune`), or raise cluster.max_shards_per_node"
    if there >= room:
        yield Finding(Level.FAIL, what, f"{text}: the next month's index cannot be made", advice)
    elif there >= room * SHARDS_WARN_SHARE:
        yield Finding(Level.WARN, what, f"{text}: the next month's index may not be made", advice)
    else:
        yield Finding(Level.OK, what, text)


def judge_bulk_bytes(what: str, nodes: Any, bulk_bytes: int, body_bytes: int) -> Iterator[Finding]:
    """Say whether OpenSearch takes what one bulk, and one event, may be."""
    taken = min(int(node["http"]["max_content_length_in_bytes"]) for node in nodes["nodes"].values())
    text = f"OpenSearch takes {taken} bytes (http.max_content_length)"
    if bulk_bytes > taken:
        yield Finding(
            Level.WARN,
            what,
            f"{text}, a bulk may have {bulk_bytes}: each is sent twice, whole and in halves",
            f"set FOREBAY_BULK_BYTES_MAX to {taken // 2} or less",
        )
    elif body_bytes > taken:
        yield Finding(
            Level.WARN,
            what,
            f"{text}, one event may have {body_bytes}: such an event becomes a dead letter",
            f"set FOREBAY_BODY_BYTES_MAX to less than {taken}",
        )
    else:
        yield Finding(Level.OK, what, text)


def flatten(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return flat settings by name: the transient ones come before the persistent ones, and those before defaults."""
    known: dict[str, str] = {}
    for part in ("defaults", "persistent", "transient"):
        known |= settings.get(part) or {}
    return known or dict(settings)


def _creates(auto_create_index: str, index: str) -> bool:
    """Return whether an index may be made by its first document: true, false, or patterns of which the first counts."""
    if auto_create_index in ("true", "false"):
        return auto_create_index == "true"
    for item in auto_create_index.split(","):
        pattern = item.strip()
        if fnmatchcase(index, pattern.lstrip("+-")):
            return not pattern.startswith("-")
    return False


def _with_disk(allocation: Any) -> list[Any]:
    # Shards that are on no node have a line, too.
    return [row for row in allocation if row.get("disk.percent") is not None]


def _disk(row: Any) -> str:
    return f"{row['node']}: {row['disk.percent']}% of its disk used, {int(row['disk.avail']) >> 30} GiB free"


def _is_beyond(row: Any, watermark: str | None) -> bool:
    """Return whether a disk is fuller than a watermark: `90%` or `0.9` used, or `500mb` left."""
    match = re.fullmatch(r"([0-9.]+)\s*(%|b|kb|mb|gb|tb)?", watermark or "", re.IGNORECASE)
    if not match:
        return False
    value, unit = float(match[1]), (match[2] or "").lower()
    if unit in ("%", ""):
        used = float(row["disk.percent"])
        return used >= (value if unit else value * 100)
    return float(row["disk.avail"]) <= value * float(1024 ** ("b", "kb", "mb", "gb", "tb").index(unit))
