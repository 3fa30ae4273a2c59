"""Checks whether the cluster has all of its shards."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok, warn


class Health(Struct):
    """An answer to `_cluster/health`."""

    status: str
    number_of_nodes: int
    number_of_data_nodes: int
    active_shards: int
    initializing_shards: int
    unassigned_shards: int


def check(context: Context) -> Iterator[Finding]:
    """Check the state of the cluster."""
    health = context.answers().read("health", Health)
    text = f"{health.status}, {health.number_of_nodes} nodes, {health.unassigned_shards} shards unassigned"
    if health.status == "green":
        yield ok(text)
    elif health.status == "yellow":
        yield warn(
            f"{text}: events are taken, and copies of them are missing",
            "add a node, or set index.number_of_replicas to 0 if there is only one",
        )
    else:
        yield fail(f"{text}: some indices take nothing", "GET /_cluster/allocation/explain tells why")
