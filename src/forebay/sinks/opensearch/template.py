"""The index template of `events_*`: what OpenSearch makes of each month's index.

`dynamic: false` and `flat_object`, so that no client can add fields to the mapping; a client's own values stay
searchable by exact match (https://docs.opensearch.org/latest/mappings/supported-field-types/flat-object/, from 2.7).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from forebay.errors import OperatorNeeded, SinkUnreachable
from forebay.model import UNEXPECTED_ANSWER, Verdict
from forebay.settings import Settings
from forebay.sinks.opensearch.access import make_access
from forebay.sinks.opensearch.advice import REFUSING
from forebay.sinks.opensearch.advice import TEMPLATE as TEMPLATE_ADVICE
from forebay.sinks.opensearch.answers import HTTP_OK, read_answer
from forebay.sinks.opensearch.client import Answer, OpenSearchClient
from forebay.sinks.opensearch.excerpt import excerpt

NAME = "forebay-events"
PATH = f"/_index_template/{NAME}"
VERSION = 2
"""Grows with every change of the template; one in OpenSearch that is as new stays as it is, edited or not."""

_KEYWORD = {"type": "keyword", "ignore_above": 8191}  # 32,766 bytes is the longest term, 4 bytes the longest character
_FLAT = {"type": "flat_object"}

UNINDEXED = "unindexed"
"""The field for values of an event that OpenSearch cannot index (`repair`): kept, and not searched."""

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


class _Acknowledgement(Struct):
    acknowledged: bool


async def ensure_template(client: OpenSearchClient) -> bool:
    """Put the template in place unless one as new is there; return whether it was put.

    Raises:
        OperatorNeeded: OpenSearch refuses it.
        SinkUnreachable: OpenSearch does not answer, or is not able to.
    """
    there = await client.request("GET", PATH)
    if there.status == HTTP_OK and _version(there.body) >= VERSION:
        return False
    put = await client.request("PUT", PATH, msgspec.json.encode(TEMPLATE), "application/json")
    if put.status == HTTP_OK and _is_acknowledged(put.body):
        return True
    raise _refusal(put)


async def put_template(settings: Settings) -> str:
    """Put the template in place by hand; return a line that says what was done.

    Raises:
        SinkUnreachable: there is no OpenSearch to put it into, it does not answer, or it refuses.
    """
    if not settings.open_search_dns:
        raise SinkUnreachable("OPEN_SEARCH_DNS: not set; the embedded store needs no index template")
    client = OpenSearchClient(make_access(settings), settings.bulk_timeout_s, connections_max=1)
    try:
        was_put = await ensure_template(client)
    finally:
        await client.close()
    done = "put in place" if was_put else "there already"
    return f"index template {NAME} (version {VERSION}, for events_*): {done}"


def _version(body: bytes) -> int:
    try:
        found = msgspec.json.decode(body)["index_templates"][0]["index_template"]
        return int(found.get("version") or 0)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError, AttributeError):
        return 0


def _is_acknowledged(body: bytes) -> bool:
    """Whether OpenSearch says so: a page that answers 200 to everything has put no template."""
    try:
        return msgspec.json.decode(body, type=_Acknowledgement).acknowledged
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _refusal(answer: Answer) -> SinkUnreachable:
    text = f"OpenSearch does not take the index template (status {answer.status}): {excerpt(answer.body)}"
    outcome = read_answer(answer.status, answer.body, 1)[0]
    if outcome.verdict is Verdict.RETRY:
        return SinkUnreachable(text, outcome.error_type)
    if outcome.advice == REFUSING and outcome.error_type == f"http_{answer.status}":
        # A page of somebody else's, who knows of no template.
        return SinkUnreachable(text, UNEXPECTED_ANSWER)
    # What would be the fault of an event is the template's: OpenSearch is older than 2.7, for instance.
    return OperatorNeeded(text, "template_refused", TEMPLATE_ADVICE if outcome.advice == REFUSING else outcome.advice)
