"""Asks OpenSearch all questions of the checks at once; it changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus

from forebay.clock import now_ms
from forebay.doctor.opensearch.answers import Answers, AnswerUnknown, TimedAnswer
from forebay.errors import SinkUnreachable
from forebay.setting_values import SinkHost
from forebay.settings import Settings
from forebay.sinks.opensearch.access import make_access
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.excerpt import excerpt

TIMEOUT_S = 5
CONNECTIONS_MAX = 4

QUESTIONS = {
    "clocks": "/_nodes/stats/os?filter_path=nodes.*.name,nodes.*.timestamp",
    "health": "/_cluster/health",
    "settings": "/_cluster/settings?include_defaults=true&flat_settings=true&filter_path=*.cluster*,*.action*",
    "allocation": "/_cat/allocation?format=json&bytes=b&h=node,disk.percent,disk.avail",
    "nodes": "/_nodes/http?filter_path=nodes.*.http.max_content_length_in_bytes",
    "templates": "/_index_template",
    "months": "/_cat/indices/events_{environment}_*?format=json&h=index",
    "blocks": "/events_{environment}_*/_settings/index.blocks*?flat_settings=true&expand_wildcards=open",
    "mapping": "/{index}/_mapping",
    "pipelines": "/_ingest/pipeline",
    "names": "/_resolve/index/events_{environment}_*",
}
"""The clocks come first: while they wait for a connection, they cannot be compared."""

MONITOR = "let our user monitor the cluster"


async def ask_all(settings: Settings, hosts: Sequence[SinkHost], index: str) -> Answers:
    """Send every question to hosts that answer; `index` is the one of this month."""
    client = OpenSearchClient(replace(make_access(settings), hosts=tuple(hosts)), TIMEOUT_S, CONNECTIONS_MAX)
    paths = [path.format(environment=settings.server_environment, index=index) for path in QUESTIONS.values()]
    try:
        given = await asyncio.gather(*(_ask(client, path) for path in paths))
    finally:
        await client.close()
    return Answers(dict(zip(QUESTIONS, given, strict=True)))


async def _ask(client: OpenSearchClient, path: str) -> TimedAnswer | AnswerUnknown:
    asked_at_ms = now_ms()
    try:
        answer = await client.request("GET", path)
    except SinkUnreachable as error:
        return AnswerUnknown(str(error), MONITOR)
    # The month has no event yet; or there is no pipeline at all, which is an empty object with this status.
    if answer.status == HTTPStatus.NOT_FOUND and (b"index_not_found_exception" in answer.body or answer.body == b"{}"):
        return TimedAnswer(b"{}", asked_at_ms, now_ms())
    if answer.status != HTTPStatus.OK:
        return AnswerUnknown(f"status {answer.status}: {excerpt(answer.body)}", MONITOR)
    return TimedAnswer(answer.body, asked_at_ms, now_ms())
