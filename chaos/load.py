"""The clients of a trial: singles and batches, with and without `log_id`s, at a steady rate until told to stop."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from forebay.intake.month import uuid7_time_ms
from testbed.traffic.client import Client
from testbed.traffic.events import Event, expected_info, make_event

if TYPE_CHECKING:
    import aiohttp

CONNECTIONS = 12
REQUESTS: Sequence[tuple[int, bool]] = ((1, True), (20, True), (1, True), (50, True), (1, False), (20, False))
"""The requests of the clients, in turn: the number of events, and whether these bring `log_id`s."""

WAIT_STEP_S = 0.005

EventMaker = Callable[[int, bool], Event]


class Taken(NamedTuple):
    """The facts about an event that was answered with 200.

    Attributes:
        digest: of the `event_info` that its document must have.
        month: of the index that it must be in, as `2026-11`; None for the month of receipt.
        answered_at: by the clock of `time.monotonic`.
        ack: the acknowledgement that was asked for.
        doomed: whether the sink must refuse it for good.
    """

    digest: bytes
    month: str | None
    answered_at: float
    ack: str
    doomed: bool


def digest(info: dict[str, Any]) -> bytes:
    """Return a few bytes that stand for all fields of an `event_info`, so that a long run fits into memory."""
    return hashlib.blake2b(json.dumps(info, sort_keys=True).encode(), digest_size=16).digest()


class Sender(Client):
    """A client that remembers the right content of each event's document.

    Attributes:
        ack: the acknowledgement that it asks for.
        is_doomed: returns whether the sink must refuse an event for good.
        taken: the events that were answered with 200, by `log_id`.
    """

    def __init__(
        self,
        url: str,
        token: str,
        ack: str,
        doomed: Callable[[Event], bool],
        find_month: Callable[[Event], str | None],
    ) -> None:
        super().__init__(url, token, ack=ack)
        self.ack = ack
        self.is_doomed = doomed
        self._find_month = find_month
        self.taken: dict[str, Taken] = {}

    def accept(self, log_id: str, event: Event) -> None:
        """Remember an event that was answered with 200."""
        # The first answer counts: a client that sends again changes nothing about the event.
        if log_id not in self.taken:
            self.taken[log_id] = Taken(
                digest(expected_info(event)), self._find_month(event), time.monotonic(), self.ack, self.is_doomed(event)
            )


class Load:
    """Sends requests until told to stop, and then repeats only those that have no answer yet."""

    def __init__(self, client: Sender, make: EventMaker, rate: float, first: int = 0) -> None:
        """Send events made by `make`, numbers `first` and on, about `rate` of them a second."""
        self.client = client
        self._make = make
        self._rate = rate
        self._numbers = itertools.count(first)
        self._requests = self._make_requests()
        self._next_at = 0.0
        self._running = asyncio.Event()
        self._running.set()
        self._in_hand = 0
        self._stopped = False
        self._spares = False

    async def run(self) -> None:
        """Send until `stop`."""
        self._next_at = time.monotonic()
        async with self.client.session() as session, asyncio.TaskGroup() as senders:
            for _ in range(CONNECTIONS):
                senders.create_task(self._send(session))

    def stop(self) -> None:
        """Begin no further request."""
        self._stopped = True
        self._running.set()

    async def pause(self) -> None:
        """Begin no further request for a while, and wait until those in hand are answered."""
        self._running.clear()
        while self._in_hand:
            await asyncio.sleep(WAIT_STEP_S)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._next_at = time.monotonic()
        self._running.set()

    async def spare_sink(self) -> None:
        """Send no further event that the sink must refuse for good."""
        await self.pause()
        self._spares = True
        self.resume()

    async def wait_accepted(self, events: int) -> None:
        """Wait until so many more events than now have been accepted."""
        wanted = len(self.client.taken) + events
        while len(self.client.taken) < wanted:
            await asyncio.sleep(WAIT_STEP_S)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while True:
            await self._running.wait()
            if self._stopped:
                return
            events = next(self._requests)
            self._in_hand += 1
            try:
                await self._keep_pace(len(events))
                await self.client.insist(session, events)
            finally:
                self._in_hand -= 1

    async def _keep_pace(self, events: int) -> None:
        now = time.monotonic()
        # Requests that were held up are not sent in a burst: that would be another load than the one asked for.
        self._next_at = max(self._next_at, now - 1) + events / self._rate
        await asyncio.sleep(max(0, self._next_at - now))

    def _make_requests(self) -> Iterator[Sequence[Event]]:
        for size, with_ids in itertools.cycle(REQUESTS):
            made = [self._make(number, with_ids) for number in itertools.islice(self._numbers, size)]
            if events := [event for event in made if not (self._spares and self.client.is_doomed(event))]:
                yield events


def make_plain(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make one of the events of many kinds that all tests use."""
    return make_event(number, with_id=with_id)


def find_month(event: Event) -> str | None:
    """Return the month of the index that an event must be in; None if it has no time of its own."""
    if "log_id" not in event:
        return None
    time_ms = uuid7_time_ms(event["log_id"]) or event.get("timestamp")
    return None if time_ms is None else time.strftime("%Y-%m", time.gmtime(time_ms / 1000))
