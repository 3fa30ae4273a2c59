"""Everything that a trial runs on: the server, OpenSearch, the proxy between them, and the clients."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import aiohttp

from chaos.load import Load
from chaos.metrics import Metrics, scrape
from chaos.scale import Scale
from testbed.servers.faulty_proxy import Behaviour, FaultyProxy, pass_on
from testbed.servers.forebay import ForebayServer
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.shaky_forebay import ShakyForebay
from testbed.traffic.index import Index

POLL_S = 0.05
DELIVERED_POLL_S = 0.5
NONE_COMES_S = 45.0
DRAINED_TIMES = 3
"""So often in a row: a server that has just started has not counted the events in its spool yet."""


class FaultMissed(Exception):
    """The fault did not strike as intended: the trial says nothing."""


class PromiseBroken(Exception):
    """The server has broken one of its promises."""


class Kill(NamedTuple):
    """A moment at which the server was killed.

    Attributes:
        at: the time of the signal, by the clock of `time.monotonic`.
        heard_until: the time at which the clients had read the last answer from before the end.
        unsettled_max: the most events that can have been in its memory alone: those that its metrics showed just
            before, and those accepted since.
    """

    at: float
    heard_until: float
    unsettled_max: int


class Stage:
    """The parts of a trial that a fault can strike.

    Attributes:
        kills: the moments at which the server was killed.
        notes: a fault's own measurements, for the document.
        damaged_at: the time at which the spool was damaged, or OpenSearch's data lost, by `time.monotonic`.
        at_risk: the number of events that only the spool held then, or only OpenSearch.
    """

    def __init__(
        self,
        *,
        environment: str,
        scale: Scale,
        server: ForebayServer,
        opensearch_url: str,
        own: OpenSearchServer | None,
        proxy: FaultyProxy | None,
        load: Load,
    ) -> None:
        self.environment = environment
        self.scale = scale
        self.server = server
        self.opensearch_url = opensearch_url
        self.index = Index(opensearch_url, environment)
        self.load = load
        self.kills: list[Kill] = []
        self.notes: list[str] = []
        self.damaged_at = 0.0
        self.at_risk = 0
        self._own = own
        self._proxy = proxy

    @property
    def opensearch(self) -> OpenSearchServer:
        """The OpenSearch of a row that stops it."""
        if self._own is None:
            raise RuntimeError("the row does not ask for an OpenSearch of its own")
        return self._own

    @property
    def proxy(self) -> FaultyProxy:
        """The proxy of a row that needs one."""
        if self._proxy is None:
            raise RuntimeError("the row does not ask for a proxy")
        return self._proxy

    @property
    def shaky(self) -> ShakyForebay:
        """The server of a row whose disk fails."""
        if not isinstance(self.server, ShakyForebay):
            raise RuntimeError("the row does not ask for a disk that fails")  # noqa: TRY004 - not a wrong type
        return self.server

    @property
    def spool_path(self) -> Path:
        """The spool's file."""
        return Path(self.server.settings["DATABASE_URL"].removeprefix("sqlite://"))

    async def metrics(self) -> Metrics:
        """Return the server's metrics."""
        return await scrape(self.server.url)

    async def start_server(self) -> None:
        """Start the server, and let the load go on meanwhile."""
        await asyncio.to_thread(self.server.start)

    async def revive(self) -> None:
        """Start the server again if it has ended by itself, as a service manager would."""
        if not self.server.is_running:
            await asyncio.to_thread(self.server.kill)
            await self.start_server()
            self.notes.append(
                "the server ended when it met the damage, and saved every readable row when it started again"
            )

    async def kill_server(self) -> None:
        """Kill the server and remember the moment."""
        await self._kill(self.server.kill)

    async def kill_worker(self, pid: int) -> None:
        """Kill one process of the server and remember the moment."""
        await self._kill(lambda: os.kill(pid, signal.SIGKILL))

    async def wait_workers(self, workers: int) -> None:
        """Wait until so many processes of the server answer."""
        while (await self.metrics()).workers_up < workers:
            await asyncio.sleep(POLL_S)

    async def _kill(self, kill: Callable[[], None]) -> None:
        before = len(self.load.client.taken)
        metrics = await self.metrics()
        at = time.monotonic()
        await asyncio.to_thread(kill)
        # The last answers may still be on their way to the clients.
        await asyncio.sleep(POLL_S)
        bulk_events_max = int(self.server.settings.get("FOREBAY_BULK_EVENTS_MAX", "1000"))
        in_memory = metrics.channel_events + metrics.bulks_in_flight * bulk_events_max
        self.kills.append(Kill(at, time.monotonic(), in_memory + len(self.load.client.taken) - before))

    async def misbehave(self, behaviour: Behaviour, logged: str = "") -> None:
        """Let the proxy behave like this for the length of a fault.

        It lasts until enough bulks have met it, and until the server has logged `logged`.
        """
        before = self.proxy.interfered
        ends_at = time.monotonic() + self.scale.fault_s
        await asyncio.to_thread(self.proxy.behave, behaviour)
        while time.monotonic() < ends_at or self.proxy.interfered < before + self.scale.hits:
            await asyncio.sleep(POLL_S)
        await self.wait_logged(logged)
        await asyncio.to_thread(self.proxy.behave, pass_on)

    async def wait_logged(self, text: str) -> None:
        """Wait until the server has logged this."""
        while text not in self.server.log:
            await asyncio.sleep(POLL_S)

    async def wait_cause(self, text: str) -> None:
        """Wait until the server gives this as a cause for not being well."""
        headers = {"Authorization": f"Bearer {self.server.token(scope='admin')}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                async with session.get(f"{self.server.url}/health/ready") as response:
                    if text in await response.text():
                        return
                await asyncio.sleep(POLL_S)

    async def wait_unready(self) -> None:
        """Wait until the server reports that it takes no events."""
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{self.server.url}/health/ready") as response:
                    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
                        return
                await asyncio.sleep(POLL_S)

    async def wait_indexed(self) -> None:
        """Wait until OpenSearch has an event."""
        while not await self.index.count():
            await asyncio.sleep(POLL_S)

    async def wait_drained(self) -> None:
        """Wait until the server has settled everything; no client may be sending."""
        times = 0
        while times < DRAINED_TIMES:
            times = times + 1 if (await self.metrics()).is_drained else 0
            await asyncio.sleep(POLL_S)

    async def wait_delivered(self) -> None:
        """Wait until everything that was answered with 200 is in OpenSearch, but for events that it must refuse.

        Raises:
            PromiseBroken: some is not there, and no other has come for a while.
        """
        missing = {log_id for log_id, event in self.load.client.taken.items() if not event.doomed}
        ends_at = time.monotonic() + NONE_COMES_S
        while missing and time.monotonic() < ends_at:
            if found := await self.index.find(missing):
                missing -= found
                ends_at = time.monotonic() + NONE_COMES_S
            await asyncio.sleep(DELIVERED_POLL_S)
        self.expect(
            not missing, f"{len(missing)} events were not delivered, {', '.join(sorted(missing)[:3])} among them"
        )

    async def wait_unwell(self) -> None:
        """Wait until the server has noticed that its sink takes nothing."""
        while (await self.metrics()).sink_up:
            await asyncio.sleep(POLL_S)

    def require(self, condition: bool, missed: str) -> None:  # noqa: FBT001 - reads like `assert`
        """Check that a fault has struck.

        Raises:
            FaultMissed: it has not.
        """
        if not condition:
            raise FaultMissed(missed)

    def expect(self, condition: bool, broken: str) -> None:  # noqa: FBT001 - reads like `assert`
        """Check a promise of the server that no event shows.

        Raises:
            PromiseBroken: it does not.
        """
        if not condition:
            raise PromiseBroken(broken)

    def expect_sound(self) -> None:
        """Check that the server has called nothing damaged (`PromiseBroken`)."""
        moved = [path.name for path in self.spool_path.parent.iterdir() if ".moved-" in path.name]
        self.expect(not moved, f"moved away: {', '.join(moved)}")
        self.expect("spool_damaged" not in self.server.log, "a sound spool was called damaged")
