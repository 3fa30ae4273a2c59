"""The indices whose documents have the form of their wire format, not that of `document.py`: their names are fixed."""

from __future__ import annotations

UBI_EVENTS = "ubi_events"
UBI_QUERIES = "ubi_queries"
"""Those of User Behavior Insights, whose queries and dashboards know no other names."""

UNINDEXED = "unindexed"
"""The field for values of an event that OpenSearch cannot index: kept, and not searched."""

RECEIPT = "forebay"
"""The field of such a document that holds the rest of what we know: the time of receipt, and who sent it."""


def has_own_documents(index: str) -> bool:
    """Return whether the documents of an index have a form of their own."""
    return index in (UBI_EVENTS, UBI_QUERIES)
