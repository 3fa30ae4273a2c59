"""Checks whether OpenSearch takes requests as large as a bulk, and as one event, may be."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, ok, warn
from forebay.doctor.opensearch.answers import unreadable


class _Http(Struct):
    bytes_max: int = field(name="max_content_length_in_bytes")


class _Node(Struct):
    http: _Http


class _Nodes(Struct):
    nodes: dict[str, _Node]


def check(context: Context) -> Iterator[Finding]:
    """Compare our limits with the smallest one of the nodes."""
    nodes = context.answers().read("nodes", _Nodes).nodes
    if not nodes:
        raise unreadable("no nodes")
    taken = min(node.http.bytes_max for node in nodes.values())
    bulk_bytes, body_bytes = context.settings.bulk_bytes_max, context.settings.body_bytes_max
    text = f"OpenSearch takes {taken} bytes (http.max_content_length)"
    if bulk_bytes > taken:
        yield warn(
            f"{text}, a bulk may have {bulk_bytes}: each is sent twice, whole and in halves",
            f"set FOREBAY_BULK_BYTES_MAX to {taken // 2} or less",
        )
    elif body_bytes > taken:
        yield warn(
            f"{text}, one event may have {body_bytes}: such an event becomes a dead letter",
            f"set FOREBAY_BODY_BYTES_MAX to less than {taken}",
        )
    else:
        yield ok(text)
