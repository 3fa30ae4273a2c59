"""The index templates of `ubi_events` and `ubi_queries`: the mappings and settings that the UBI plugin gives them, too.

Sources: src/main/resources/events-mapping.json and queries-mapping.json of opensearch-project/user-behavior-insights,
and the settings in its UbiActionFilter.java. Added are fields of ours (`RECEIPT`, `UNINDEXED`), limits for terms that
OpenSearch would refuse, and that a value of another type than its field's is kept and not indexed.

`ubi_events` is dynamic, as UBI's own: its queries search fields that no schema names. A field that OpenSearch cannot
add costs no event (`fitting.py`).
"""

from __future__ import annotations

from typing import Any

from forebay.own_indices import RECEIPT, UBI_EVENTS, UBI_QUERIES, UNINDEXED
from forebay.sinks.opensearch.template import IndexTemplate

VERSION = 1
"""Grows with every change of one of them."""


def _keyword(chars_max: int) -> dict[str, Any]:
    return {"type": "keyword", "ignore_above": chars_max}


_LONG = _keyword(8191)  # here UBI has no limit; 32,766 bytes is the longest term, 4 bytes the longest character
_TIME = {"type": "date"}  # of any form that UBI has had: ISO 8601, or milliseconds
_TEXT = {"type": "text", "fields": {"keyword": _keyword(256)}}
_INTEGER = {"type": "integer"}
_OURS = {
    RECEIPT: {
        "dynamic": False,
        "properties": {
            "received_at": {"type": "date"},
            "source": _LONG,
            "device_uuid": _LONG,
            "app_version": _LONG,
            "os_version": _LONG,
            "user_agent": _LONG,
            "client_address": {"type": "ip"},
        },
    },
    UNINDEXED: {"type": "object", "enabled": False},
}

_EVENT_FIELDS: dict[str, Any] = {
    "application": _keyword(256),
    "action_name": _keyword(100),
    "client_id": _keyword(100),
    "query_id": _keyword(100),
    "message": _keyword(1024),
    "message_type": _keyword(100),
    "user_query": _LONG,
    "timestamp": _TIME,
    "event_attributes": {
        "dynamic": True,
        "properties": {
            "position": {
                "properties": {
                    "ordinal": _INTEGER,
                    "x": _INTEGER,
                    "y": _INTEGER,
                    "page_depth": _INTEGER,
                    "scroll_depth": _INTEGER,
                    "trail": _TEXT,
                }
            },
            "object": {
                "properties": {
                    "internal_id": _LONG,
                    "object_id": _keyword(256),
                    "object_id_field": _keyword(100),
                    "name": _keyword(256),
                    "description": _TEXT,
                    "object_detail": {"type": "object"},
                }
            },
        },
    },
}

_QUERY_FIELDS: dict[str, Any] = {
    "timestamp": _TIME,
    "query_id": _keyword(100),
    "query": {"type": "text"},
    "query_response_id": _keyword(100),
    "query_response_hit_ids": _LONG,
    "user_query": _LONG,
    "query_attributes": {"type": "flat_object"},
    "client_id": _keyword(100),
    "application": _keyword(100),
}


def _make(index: str, *, is_dynamic: bool, fields: dict[str, Any]) -> IndexTemplate:
    body = {
        "index_patterns": [index],
        "priority": 100,
        "version": VERSION,
        "template": {
            "settings": {
                "index": {"number_of_shards": 1, "auto_expand_replicas": "0-2", "mapping": {"ignore_malformed": True}}
            },
            "mappings": {"dynamic": is_dynamic, "properties": fields | _OURS},
        },
    }
    return IndexTemplate(f"forebay-{index.replace('_', '-')}", body)


UBI_TEMPLATES = {
    UBI_EVENTS: _make(UBI_EVENTS, is_dynamic=True, fields=_EVENT_FIELDS),
    UBI_QUERIES: _make(UBI_QUERIES, is_dynamic=False, fields=_QUERY_FIELDS),
}
"""By the index. No two templates with the same priority may fit one name, and only these fit theirs exactly."""
