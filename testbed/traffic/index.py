"""Reads the documents back from OpenSearch, one by one."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from http import HTTPStatus
from typing import Any

import aiohttp

PAGE = 5_000
STARTING_S = 30.0


class IndexUnreadable(Exception):
    """OpenSearch answers a search with an error."""


class Index:
    """The documents of one environment, or those of the indices that a pattern selects."""

    def __init__(self, url: str, environment: str, pattern: str = "") -> None:
        self._url = url
        self._pattern = pattern or f"events_{environment}_*"

    async def wait_count(self, wanted: int, timeout_s: float) -> int:
        """Wait until there are that many documents, or no further one comes for the time; return their number."""
        found, deadline = 0, time.monotonic() + timeout_s
        while (now := await self.count()) < wanted and time.monotonic() < deadline:
            # A slow machine takes longer, but goes on.
            if now > found:
                found, deadline = now, time.monotonic() + timeout_s
            await asyncio.sleep(0.2)
        return now

    async def count(self) -> int:
        """Return the number of documents that a search finds."""
        async with aiohttp.ClientSession() as session:
            await session.post(f"{self._url}/{self._pattern}/_refresh?allow_no_indices=true")
            async with session.get(f"{self._url}/{self._pattern}/_count?allow_no_indices=true") as response:
                answer = await response.json()
                # An index that was made just now, and whose shard is still starting, cannot be counted yet.
                return 0 if response.status == HTTPStatus.SERVICE_UNAVAILABLE else int(answer["count"])

    async def find(self, log_ids: Collection[str]) -> set[str]:
        """Return those of these `_id`s that a search finds."""
        found: set[str] = set()
        wanted = list(log_ids)
        async with aiohttp.ClientSession() as session:
            await session.post(f"{self._url}/{self._pattern}/_refresh?allow_no_indices=true")
            for start in range(0, len(wanted), PAGE):
                query = {"size": PAGE, "_source": False, "query": {"ids": {"values": wanted[start : start + PAGE]}}}
                answer = await self._search(session, query, "")
                found |= {hit["_id"] for hit in answer["hits"]["hits"]}
        return found

    async def documents(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield `_id` and source of every document of every index, once for each index that holds it."""
        async for _, log_id, source in self.copies():
            yield log_id, source

    async def copies(self) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """Yield index, `_id` and source of every copy of a document.

        Raises:
            IndexUnreadable: OpenSearch can't search all shards; they have had time to start.
        """
        async with aiohttp.ClientSession() as session:
            answer = await self._search(session, {"size": PAGE, "sort": ["_doc"]}, "&scroll=1m")
            while hits := answer["hits"]["hits"]:
                for hit in hits:
                    yield hit["_index"], hit["_id"], hit["_source"]
                scroll = {"scroll": "1m", "scroll_id": answer["_scroll_id"]}
                async with session.post(f"{self._url}/_search/scroll", json=scroll) as response:
                    answer = await _read(response)

    async def _search(self, session: aiohttp.ClientSession, query: dict[str, Any], more: str) -> dict[str, Any]:
        """Ask for the first page, and wait for an index that was made just now."""
        # Without the second parameter the documents of a shard that is starting are left out, with a status of 200.
        parameters = "allow_no_indices=true&allow_partial_search_results=false" + more
        deadline = time.monotonic() + STARTING_S
        while True:
            async with session.post(f"{self._url}/{self._pattern}/_search?{parameters}", json=query) as response:
                if response.status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    return await _read(response)
            await asyncio.sleep(0.2)

    async def remove(self) -> None:
        """Delete every index."""
        async with aiohttp.ClientSession() as session:
            indices = [index["index"] for index in await self._list(session)]
            for index in indices:
                await session.delete(f"{self._url}/{index}")

    async def _list(self, session: aiohttp.ClientSession) -> list[dict[str, Any]]:
        async with session.get(f"{self._url}/_cat/indices/{self._pattern}?format=json&h=index") as response:
            listed: list[dict[str, Any]] = await response.json()
            return listed


async def _read(response: aiohttp.ClientResponse) -> dict[str, Any]:
    if response.status != HTTPStatus.OK:
        raise IndexUnreadable(f"{response.status}: {await response.text()}")
    answer: dict[str, Any] = await response.json()
    return answer
