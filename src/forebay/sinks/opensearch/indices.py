"""The monthly indices in OpenSearch: what they hold, and how they are deleted."""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from forebay.errors import SinkUnreachable
from forebay.sinks.months import StoredMonth, month_of
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.answers import HTTP_NOT_FOUND, HTTP_OK
from forebay.sinks.opensearch.client import Answer, OpenSearchClient
from forebay.sinks.opensearch.excerpt import excerpt

TIMEOUT_S = 60


class _Row(Struct):
    """A line of `_cat/indices`: numbers come as text, and a closed index has none."""

    index: str
    documents: str | None = field(name="docs.count", default=None)
    stored_bytes: str | None = field(name="store.size", default=None)


_decode_rows = msgspec.json.Decoder(list[_Row]).decode


class OpenSearchMonths:
    """A `MonthKeeper` of one environment; to be made in the loop that it will be used in."""

    def __init__(self, access: Access, environment: str) -> None:
        self._client = OpenSearchClient(access, TIMEOUT_S, connections_max=1)
        self._environment = environment

    async def list_months(self) -> list[StoredMonth]:
        """Return the indices, oldest first (`SinkUnreachable` where OpenSearch does not say)."""
        path = f"/_cat/indices/events_{self._environment}_*?format=json&bytes=b&h=index,docs.count,store.size"
        answer = await self._client.request("GET", path)
        if answer.status != HTTP_OK:
            raise _refusal("list the indices", answer)
        try:
            rows = _decode_rows(answer.body)
        except (ValueError, RecursionError) as error:
            raise SinkUnreachable(f"the answer is not what OpenSearch sends: {error}") from error
        # An alias of that name is listed as the index behind it.
        return sorted(
            StoredMonth(row.index, int(row.documents or 0), int(row.stored_bytes or 0))
            for row in rows
            if month_of(row.index, self._environment)
        )

    async def delete_month(self, index: str) -> None:
        """Delete an index (`SinkUnreachable` where OpenSearch does not)."""
        if month_of(index, self._environment) is None:
            raise ValueError(f"{index} is no month of {self._environment}")
        answer = await self._client.request("DELETE", f"/{index}")
        is_gone = answer.status == HTTP_NOT_FOUND and b"index_not_found_exception" in answer.body
        if answer.status != HTTP_OK and not is_gone:
            raise _refusal(f"delete {index}", answer)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _refusal(what: str, answer: Answer) -> SinkUnreachable:
    return SinkUnreachable(f"OpenSearch does not {what} (status {answer.status}): {excerpt(answer.body)}")
