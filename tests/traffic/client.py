"""A client that does what a good SDK does: it sends again, unchanged, what got no answer or a 503."""

import asyncio
from collections.abc import Iterable, Sequence

import aiohttp

from traffic.events import Event

RETRY_S = 0.05
TRIES_MAX = 2_000
HEADERS = {"device-uuid": "8c1f-dev", "app-version": "4.2.1", "os-version": "Android 16"}


class Client:
    """Sends events and remembers which were accepted, by the `log_id` of the answer."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {**HEADERS, "Authorization": f"Bearer {token}"}
        self.accepted: dict[str, Event] = {}
        self.resent = 0

    async def send(self, events: Sequence[Event], *, batch: int, connections: int) -> None:
        """Send every event until it is accepted; `batch` events a request, one alone where it is 1."""
        portions = [events[start : start + batch] for start in range(0, len(events), batch)]
        waiting = iter(portions)
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session,
            asyncio.TaskGroup() as senders,
        ):
            for _ in range(connections):
                senders.create_task(self._send_portions(session, waiting))

    async def _send_portions(self, session: aiohttp.ClientSession, portions: Iterable[Sequence[Event]]) -> None:
        for portion in portions:
            await self._insist(session, portion)

    async def _insist(self, session: aiohttp.ClientSession, portion: Sequence[Event]) -> None:
        for _ in range(TRIES_MAX):
            try:
                if await self._try(session, portion):
                    return
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                pass
            self.resent += len(portion)
            await asyncio.sleep(RETRY_S)
        raise AssertionError(f"events were not accepted in {TRIES_MAX} tries")

    async def _try(self, session: aiohttp.ClientSession, portion: Sequence[Event]) -> bool:
        if len(portion) == 1:
            async with session.post(f"{self._url}/events", json=portion[0]) as response:
                answer = await response.json()
                if response.status == 503:
                    return False
                assert response.status == 200, answer
                self.accepted[answer["log_id"]] = portion[0]
                return True
        async with session.post(f"{self._url}/events/batch", json=portion) as response:
            answer = await response.json()
            if response.status == 503:
                return False
            assert response.status == 200, answer
            assert answer["rejected"] == 0, answer
            for event, result in zip(portion, answer["results"], strict=True):
                self.accepted[result["log_id"]] = event
            return True
