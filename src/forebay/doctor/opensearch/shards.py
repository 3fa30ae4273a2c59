"""Checks whether the cluster has room for the shards of the next month."""

from __future__ import annotations

from collections.abc import Iterator

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok, warn
from forebay.doctor.opensearch.answers import unreadable
from forebay.doctor.opensearch.cluster import Health
from forebay.doctor.opensearch.cluster_settings import read_settings

LIMIT = "cluster.max_shards_per_node"
WARN_SHARE = 0.9


def check(context: Context) -> Iterator[Finding]:
    """Compare the shards of the cluster with its limit."""
    health = context.answers().read("health", Health)
    per_node = str(read_settings(context).get(LIMIT))
    if not per_node.isdecimal():
        raise unreadable(f"no {LIMIT}")
    room = int(per_node) * health.number_of_data_nodes
    shards = health.active_shards + health.initializing_shards + health.unassigned_shards
    text = f"{shards} shards of {room} ({LIMIT} {per_node})"
    advice = f"delete old indices (`forebay index prune`), or raise {LIMIT}"
    if shards >= room:
        yield fail(f"{text}: the next month's index cannot be made", advice)
    elif shards >= room * WARN_SHARE:
        yield warn(f"{text}: the next month's index may not be made", advice)
    else:
        yield ok(text)
