"""A client that behaves as a good SDK: it sends events again, unchanged, after a 503 or no answer."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp

from testbed.traffic.events import Event, is_bad

RETRY_S = 0.05
TRIES_MAX = 2_000
ANSWER_TIMEOUT_S = 30.0
HEADERS = {"device-uuid": "8c1f-dev", "app-version": "4.2.1", "os-version": "Android 16"}


class Client:
    """Sends events and remembers which were accepted, by the `log_id` of the answer.

    Attributes:
        accepted: the events that were answered with 200.
        refused: the number that was answered as the client's own mistake, which only bad ones may be.
        resent: the number of events in repeated requests.
        answers: requests by the status of their answer.
        connection_errors: requests without an answer.
    """

    def __init__(self, url: str, token: str, *, ack: str = "") -> None:
        """Send to a server; `ack` asks for one kind of answer, else the server's default holds."""
        self._url = url
        self._query = {"ack": ack} if ack else {}
        self._headers = {**HEADERS, "Authorization": f"Bearer {token}"}
        self.accepted: dict[str, Event] = {}
        self.refused = 0
        self.resent = 0
        self.answers: Counter[int] = Counter()
        self.connection_errors = 0

    def session(self) -> aiohttp.ClientSession:
        """Return a session to send in; to be closed by the caller."""
        return aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S))

    async def send(self, events: Sequence[Event], *, batch: int, connections: int) -> None:
        """Send every event until it is accepted; `batch` events a request, one alone if it is 1."""
        requests = [events[start : start + batch] for start in range(0, len(events), batch)]
        waiting = iter(requests)
        async with self.session() as session, asyncio.TaskGroup() as senders:
            for _ in range(connections):
                senders.create_task(self._send_requests(session, waiting))

    async def _send_requests(self, session: aiohttp.ClientSession, requests: Iterable[Sequence[Event]]) -> None:
        for events in requests:
            await self.insist(session, events)

    async def insist(self, session: aiohttp.ClientSession, events: Sequence[Event]) -> None:
        """Send these events, unchanged, until they are answered with something else than 503."""
        for _ in range(TRIES_MAX):
            try:
                if await self._try(session, events):
                    return
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                self.connection_errors += 1
            self.resent += len(events)
            await asyncio.sleep(RETRY_S)
        raise AssertionError(f"events were not accepted in {TRIES_MAX} tries")

    def accept(self, log_id: str, event: Event) -> None:
        """Remember an event that was answered with 200."""
        self.accepted[log_id] = event

    async def _try(self, session: aiohttp.ClientSession, events: Sequence[Event]) -> bool:
        alone = len(events) == 1
        path, body = ("/events", events[0]) if alone else ("/events/batch", events)
        async with session.post(self._url + path, params=self._query, json=body) as response:
            answer = await response.json()
        self.answers[response.status] += 1
        if response.status == 503:
            return False
        if alone:
            self._record(events[0], {**answer, "status": answer["status"] if response.status == 200 else "rejected"})
            return True
        assert response.status == 200, answer
        for event, result in zip(events, answer["results"], strict=True):
            self._record(event, result)
        return True

    def _record(self, event: Event, result: dict[str, Any]) -> None:
        if result["status"] == "rejected":
            assert is_bad(event), f"a good event was refused: {result}"
            self.refused += 1
        else:
            assert not is_bad(event), f"a bad event was accepted: {result}"
            self.accept(result["log_id"], event)
