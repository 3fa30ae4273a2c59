"""Reads documents back from OpenSearch."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from forebay.errors import SinkUnreachable
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.client import Answer, OpenSearchClient
from forebay.sinks.opensearch.excerpt import excerpt
from forebay.sinks.port import Query, document_path

TIMEOUT_S = 30
ANSWER_BYTES_MAX = 512 * 1024 * 1024
"""The most bytes that are read of an answer: it may hold many large documents."""

OPTIONS = "ignore_unavailable=true&allow_no_indices=true"

STARTING_S_MAX = 3.0
STARTING_POLL_S = 0.2
"""How long, and how often, to ask again after 503: for a moment no shard of a new month's index is there to be read."""

NEWEST_FIRST = [{"received_at": {"order": "desc", "unmapped_type": "date"}}]


class _Shards(Struct):
    failed: int = 0


class _Result(Struct, kw_only=True):
    shards: _Shards = field(name="_shards")


class _Hit(Struct):
    document: Raw = field(name="_source")


class _Hits(Struct):
    hits: list[_Hit]


class _Found(_Result, kw_only=True):
    hits: _Hits


class _Counted(_Result, kw_only=True):
    count: int


class _Cause(Struct):
    type: str
    reason: str | None = None


class _Refusal(Struct):
    error: _Cause


R = TypeVar("R", bound=_Result)


class OpenSearchReader:
    """Reads the indices of one environment."""

    def __init__(self, access: Access, environment: str) -> None:
        self._client = OpenSearchClient(access, TIMEOUT_S, 1, ANSWER_BYTES_MAX)
        # Without the exclusion `prod` would read the events of `prod_eu` too; a month has no underscore.
        self._indices = f"events_{environment}_*,-events_{environment}_*_*"

    async def search(self, query: Query) -> list[Raw]:
        """Return documents, newest `received_at` first, as far as a millisecond tells them apart.

        Raises:
            SinkUnreachable: OpenSearch did not answer, refused, or could not search all of the documents.
        """
        body = {"query": _condition(query), "sort": NEWEST_FIRST, "size": query.limit}
        found = await self._ask("_search", body, _Found)
        return [] if found is None else [hit.document for hit in found.hits.hits]

    async def count(self, query: Query) -> int:
        """Count documents.

        Raises:
            SinkUnreachable: OpenSearch did not answer, refused, or could not search all of the documents.
        """
        counted = await self._ask("_count", {"query": _condition(query)}, _Counted)
        return 0 if counted is None else counted.count

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(self, operation: str, body: dict[str, Any], kind: type[R]) -> R | None:
        """Return the result, or None if there is no index yet."""
        path = f"/{self._indices}/{operation}?{OPTIONS}"
        answer = await self._request(path, msgspec.json.encode(body))
        if answer.status == HTTPStatus.OK:
            return _read_result(answer, kind)
        cause = _read_cause(answer)
        # If something else answers, at a wrong address for instance, there would never be a document.
        if answer.status == HTTPStatus.NOT_FOUND and cause is not None:
            return None
        shown = excerpt(f"{cause.type}: {cause.reason}".encode() if cause else answer.body)
        raise SinkUnreachable(f"OpenSearch does not answer {operation} (status {answer.status}): {shown}")

    async def _request(self, path: str, body: bytes) -> Answer:
        give_up_at = time.monotonic() + STARTING_S_MAX
        while True:
            answer = await self._client.request("POST", path, body, "application/json")
            if answer.status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > give_up_at:
                return answer
            await asyncio.sleep(STARTING_POLL_S)


def _condition(query: Query) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = [{"term": {document_path(name): value}} for name, value in query.fields.items()]
    if query.received_after is not None:
        conditions.append({"range": {"received_at": {"gt": query.received_after}}})
    return {"bool": {"filter": conditions}}


def _read_result(answer: Answer, kind: type[R]) -> R:
    result = answer.decode(kind)
    if result.shards.failed:
        raise SinkUnreachable(f"OpenSearch could not search all of the events: {result.shards.failed} shards failed")
    return result


def _read_cause(answer: Answer) -> _Cause | None:
    try:
        return answer.decode(_Refusal).error
    except SinkUnreachable:
        return None
