"""HTTP to OpenSearch: one session, several hosts, ready bytes in, status and bytes out.

A thin layer over aiohttp: see docs/decisions/opensearch-client.md for why it is not opensearch-py.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import aiohttp

from forebay.errors import SinkUnreachable
from forebay.settings import SinkHost

CONNECT_TIMEOUT_S = 5.0


class Answer(NamedTuple):
    """What a host answered."""

    status: int
    body: bytes


class OpenSearchClient:
    """Sends requests to the hosts in turn; one that cannot be reached hands over to the next."""

    def __init__(self, hosts: tuple[SinkHost, ...], timeout_s: float, connections_max: int) -> None:
        self._hosts = hosts
        self._next = 0
        # No compressed answers: OpenSearch 2.19.0 hangs when asked for zstd (opensearch-project/OpenSearch#17339).
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            headers={"Accept-Encoding": "identity"},
        )

    async def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Answer:
        """Send a request and return the answer, whatever its status.

        Raises:
            SinkUnreachable: no host gave a whole answer in time. The request may have been carried out.
        """
        self._next += 1
        failures = []
        for offset in range(len(self._hosts)):
            host = self._hosts[(self._next + offset) % len(self._hosts)]
            try:
                return await self._send(host, method, path, body, content_type)
            except aiohttp.ClientError as error:
                failures.append(f"{host.url}: {str(error) or type(error).__name__}")
            except TimeoutError:
                # Only a connection that cannot be made hands over: a slow answer would cost the time again elsewhere.
                failures.append(f"{host.url}: no answer in time")
                break
            except OSError as error:
                failures.append(f"{host.url}: {error}")
        raise SinkUnreachable("; ".join(failures))

    async def _send(self, host: SinkHost, method: str, path: str, body: bytes | None, content_type: str) -> Answer:
        headers = {"Content-Type": content_type} if content_type else {}
        if host.username is not None:
            headers["Authorization"] = aiohttp.encode_basic_auth(host.username, host.password or "", encoding="utf-8")
        async with self._session.request(
            method, host.url + path, data=body, headers=headers, allow_redirects=False
        ) as response:
            return Answer(response.status, await response.read())

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
        # The transports close in the next round of the loop (aiohttp's documentation, "Graceful Shutdown").
        await asyncio.sleep(0)
