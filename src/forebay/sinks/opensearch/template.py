"""The index template of `events_*`: the mapping and settings of each month's index.

`dynamic: false` and `flat_object`, so that no client can add fields to the mapping; a client's own values stay
searchable by exact match (https://docs.opensearch.org/latest/mappings/supported-field-types/flat-object/, from 2.7).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from forebay.own_indices import UNINDEXED

NAME = "forebay-events"
PATH = f"/_index_template/{NAME}"
VERSION = 4
"""Grows with every change of the template; one in OpenSearch that is as new stays as it is, edited or not."""

_KEYWORD = {"type": "keyword", "ignore_above": 8191}  # 32,766 bytes is the longest term, 4 bytes the longest character
_FLAT = {"type": "flat_object"}

TEMPLATE: dict[str, Any] = {
    "index_patterns": ["events_*"],
    "priority": 100,
    "version": VERSION,
    "template": {
        # No `refresh_interval`: left at its default, an index that nobody searches is not refreshed at all, and the
        # first search refreshes it before it looks (https://docs.opensearch.org/latest/api-reference/index-apis/refresh/).
        "settings": {"index": {"mapping": {"total_fields": {"limit": 100}}}},
        "mappings": {
            "dynamic": False,
            "properties": {
                "@timestamp": {"type": "date"},
                "received_at": {"type": "date"},
                "log_id": _KEYWORD,
                "user_id": _KEYWORD,
                "device_uuid": _KEYWORD,
                "app_version": _KEYWORD,
                "os_version": _KEYWORD,
                "user_agent": _KEYWORD,
                "client_address": {"type": "ip"},
                "source": _KEYWORD,
                "event_info": {
                    "properties": {
                        "page": _KEYWORD,
                        "event": _KEYWORD,
                        "label": _KEYWORD,
                        "target": _KEYWORD,
                        "section": _KEYWORD,
                        "param": _FLAT,
                        "extra": _FLAT,
                    }
                },
                UNINDEXED: {"type": "object", "enabled": False},
            },
        },
    },
}


class IndexTemplate(NamedTuple):
    """An index template of ours, as it is put."""

    name: str
    body: dict[str, Any]

    @property
    def path(self) -> str:
        """Return its address."""
        return f"/_index_template/{self.name}"

    @property
    def version(self) -> int:
        """Return its version."""
        return int(self.body["version"])

    def describe(self) -> str:
        """Return its name, version and indices in words."""
        return f"{self.name} (version {self.version}, for {', '.join(self.body['index_patterns'])})"


EVENTS = IndexTemplate(NAME, TEMPLATE)
