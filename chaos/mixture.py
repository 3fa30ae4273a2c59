"""The clients of the soak: one load with each acknowledgement, some bad events among them, and the processes behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from chaos.load import Load, Sender, Taken, find_month, make_plain
from chaos.metrics import Metrics, scrape
from chaos.rows import spares_all
from testbed.servers.faulty_proxy import FaultyProxy
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.shaky_forebay import ShakyForebay
from testbed.traffic.events import Event, make_bad_event

BAD_EVERY = 200
MEMORY_SHARE = 0.25
MEMORY_FIRST = 1_000_000_000
"""The first number of the events with `ack=memory`: no two events of a run are the same."""

POLL_S = 0.05


class Mixture:
    """Two loads, and the processes that faults strike.

    Attributes:
        server: takes the events; its disk and its clock can be made to fail.
        opensearch: their destination.
        proxy: between the two.
        from_memory: the load with `ack=memory`.
    """

    def __init__(
        self, server: ShakyForebay, opensearch: OpenSearchServer, proxy: FaultyProxy, rate: float, token: str
    ) -> None:
        self.server = server
        self.opensearch = opensearch
        self.proxy = proxy
        self._disk = Sender(server.url, token, "disk", spares_all, find_month)
        self._memory = Sender(server.url, token, "memory", spares_all, find_month)
        self._from_disk = Load(self._disk, make_mixed, rate * (1 - MEMORY_SHARE))
        self.from_memory = Load(self._memory, make_mixed, rate * MEMORY_SHARE, MEMORY_FIRST)

    async def run(self) -> None:
        """Send until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._from_disk.run())
            tasks.create_task(self.from_memory.run())

    def stop(self) -> None:
        """Begin no further request."""
        self._from_disk.stop()
        self.from_memory.stop()

    async def metrics(self) -> Metrics:
        """Return the server's metrics."""
        return await scrape(self.server.url)

    async def spare_memory(self) -> None:
        """Pause the load with `ack=memory`, and wait until none of its events is in memory alone."""
        await self.from_memory.pause()
        await self._from_disk.pause()
        while (metrics := await self.metrics()).channel_events or metrics.bulks_in_flight:
            await asyncio.sleep(POLL_S)
        self._from_disk.resume()

    @property
    def taken(self) -> Mapping[str, Taken]:
        """The events that were answered with 200."""
        return {**self._disk.taken, **self._memory.taken}

    @property
    def acknowledged_from_memory(self) -> int:
        """The number of them with `ack=memory`."""
        return len(self._memory.taken)

    @property
    def answers(self) -> Counter[int]:
        """Requests by the status of their answer."""
        return self._disk.answers + self._memory.answers

    @property
    def refused(self) -> int:
        """Bad events."""
        return self._disk.refused + self._memory.refused

    @property
    def resent(self) -> int:
        """Events that were sent again."""
        return self._disk.resent + self._memory.resent

    @property
    def connection_errors(self) -> int:
        """Requests without an answer."""
        return self._disk.connection_errors + self._memory.connection_errors


def make_mixed(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event; some are bad."""
    return make_bad_event(number) if number % BAD_EVERY == 0 else make_plain(number, with_id)
