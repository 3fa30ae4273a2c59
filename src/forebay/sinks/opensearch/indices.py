"""Lists and deletes the monthly indices in OpenSearch."""

from __future__ import annotations

from http import HTTPStatus

from msgspec import Struct, field

from forebay.errors import SinkUnreachable
from forebay.sinks.months import StoredMonth, require_month, select_months
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.client import Answer, OpenSearchClient
from forebay.sinks.opensearch.excerpt import excerpt

TIMEOUT_S = 60


class _Row(Struct):
    """A line of `_cat/indices`: numbers come as text, and a closed index has none."""

    index: str
    documents: str | None = field(name="docs.count", default=None)
    stored_bytes: str | None = field(name="store.size", default=None)


class OpenSearchMonths:
    """Lists and deletes the months of one environment."""

    def __init__(self, access: Access, environment: str) -> None:
        self._client = OpenSearchClient(access, TIMEOUT_S, connections_max=1)
        self._environment = environment

    async def list_months(self) -> list[StoredMonth]:
        """Return the indices, oldest first (`SinkUnreachable` if OpenSearch does not tell)."""
        path = f"/_cat/indices/events_{self._environment}_*?format=json&bytes=b&h=index,docs.count,store.size"
        answer = await self._client.request("GET", path)
        if answer.status != HTTPStatus.OK:
            raise _refusal("list the indices", answer)
        # An alias of that name is listed as the index behind it.
        months = [
            StoredMonth(row.index, int(row.documents or 0), int(row.stored_bytes or 0))
            for row in answer.decode(list[_Row])
        ]
        return select_months(months, self._environment)

    async def delete_month(self, index: str) -> None:
        """Delete an index (`SinkUnreachable` if OpenSearch does not)."""
        require_month(index, self._environment)
        answer = await self._client.request("DELETE", f"/{index}")
        is_gone = answer.status == HTTPStatus.NOT_FOUND and b"index_not_found_exception" in answer.body
        if answer.status != HTTPStatus.OK and not is_gone:
            raise _refusal(f"delete {index}", answer)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _refusal(request: str, answer: Answer) -> SinkUnreachable:
    return SinkUnreachable(f"OpenSearch does not {request} (status {answer.status}): {excerpt(answer.body)}")
