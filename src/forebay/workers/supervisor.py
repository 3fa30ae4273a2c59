"""The supervisor: starts the workers, starts a fallen one again, and passes on the signal to end.

It holds the listening socket, so that connections which nobody has taken yet outlive the worker that would have taken
them. It imports little: with several workers memory is short.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import signal
import socket
import sys

import structlog

from forebay.telemetry.logs import configure_logs
from forebay.workers.child import Child, Life, start_child
from forebay.workers.orders import SupervisorOrder
from forebay.workers.restarts import Restarts

log = structlog.get_logger("forebay.supervisor")


class Supervisor:
    """Watches over one worker for each slot. Belongs to the event loop."""

    def __init__(self, order: SupervisorOrder, listener: socket.socket) -> None:
        self._order = order
        self._listener = listener
        self._children: dict[int, Child] = {}
        self._served: set[int] = set()
        self._ending = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Keep every slot's worker alive until a signal ends the server; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._hear, number)
        async with asyncio.TaskGroup() as tasks:
            for slot in range(1, self._order.workers + 1):
                tasks.create_task(self._keep(slot))
        return self._exit_code

    async def _keep(self, slot: int) -> None:
        restarts = Restarts()
        while not self._ending.is_set():
            try:
                life = await self._live(slot)
            except OSError as error:
                log.error("worker_not_started", slot=slot, cause=str(error))  # noqa: TRY400 - the cause says it all
                await self._rest(restarts.delay_s(0))
                continue
            if self._ending.is_set():
                self._note_end(slot, life)
            elif self._is_refusal(slot, life):
                self._exit_code = life.exit_code
                self._end()
            else:
                delay_s = restarts.delay_s(life.lived_s)
                log.warning(
                    "worker_fell", slot=slot, cause=life.cause, lived_s=round(life.lived_s, 1), again_in_s=delay_s
                )
                await self._rest(delay_s)

    async def _live(self, slot: int) -> Life:
        """See one worker through its life."""
        child = await start_child(slot, self._order)
        self._children[slot] = child
        log.info("worker_started", slot=slot, pid=child.pid)
        if self._ending.is_set():
            child.end()
        if await child.serves():
            self._note_service(slot)
        life = await child.wait()
        del self._children[slot]
        return life

    def _note_service(self, slot: int) -> None:
        is_first, self._served = not self._all_served, self._served | {slot}
        if is_first and self._all_served:
            self._order.announcement.tell()

    @property
    def _all_served(self) -> bool:
        return len(self._served) == self._order.workers

    def _is_refusal(self, slot: int, life: Life) -> bool:
        """Say whether a first start has failed for a reason that the next start would meet too."""
        return slot not in self._served and not self._all_served and life.exit_code > 0

    async def _rest(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._ending.wait()
        except TimeoutError:
            pass

    def _hear(self, number: int) -> None:
        """End in order; at the second signal, at once: what is not delivered is in the spools."""
        if self._ending.is_set():
            for child in self._children.values():
                child.kill()
            shutil.rmtree(self._order.folder, ignore_errors=True)
            os._exit(128 + number)
        self._end()

    def _end(self) -> None:
        self._ending.set()
        # From here on nobody would take what comes in.
        self._listener.close()
        for child in self._children.values():
            child.end()

    def _note_end(self, slot: int, life: Life) -> None:
        # A worker that was still starting knows no signal yet, and has nothing in memory.
        if life.exit_code not in (0, -signal.SIGTERM):
            log.error("worker_failed", slot=slot, cause=life.cause)
            self._exit_code = self._exit_code or 1


def main() -> int:
    """Be the supervisor of the order that waits in the pipe which the command line names; return the exit code."""
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        order: SupervisorOrder = pickle.load(pipe)  # noqa: S301 - from this very process
    configure_logs(order.log_format, order.log_level)
    try:
        with socket.socket(fileno=order.listener) as listener:
            return asyncio.run(supervise(order, listener))
    finally:
        shutil.rmtree(order.folder, ignore_errors=True)


async def supervise(order: SupervisorOrder, listener: socket.socket) -> int:
    """Serve until a signal ends it; return the exit code."""
    return await Supervisor(order, listener).run()


if __name__ == "__main__":
    sys.exit(main())
