"""One process of a worker, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import NamedTuple

from forebay.workers.orders import SERVING, SupervisorOrder


class Life(NamedTuple):
    """A life that is over; the exit code is negative for a signal."""

    exit_code: int
    lived_s: float

    @property
    def cause(self) -> str:
        """Return what ended it, in words."""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        return f"signal {signal.Signals(-self.exit_code).name}"


class Child:
    """A worker's process. Its standard input stays open for as long as this process lives."""

    def __init__(self, process: asyncio.subprocess.Process, told: int) -> None:
        self._process = process
        self._told = told
        self._began_at = time.monotonic()

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._process.pid

    async def serves(self) -> bool:
        """Wait until it takes connections, or has ended without ever doing so; return which."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(self._told, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            return await reader.read() == SERVING
        finally:
            transport.close()

    async def wait(self) -> Life:
        """Wait for its end."""
        return Life(await self._process.wait(), time.monotonic() - self._began_at)

    def end(self) -> None:
        """Let it end in order."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


async def start_child(slot: int, order: SupervisorOrder) -> Child:
    """Start the worker of a slot."""
    told, tell = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # no module is imported from the working directory
            "-m",
            "forebay.workers.worker",
            str(slot),
            str(tell),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(order.listener, tell),
            # Ctrl-C in a terminal goes to a whole process group, and a worker that hears a second signal ends at once.
            process_group=0,
        )
    finally:
        os.close(tell)
    if process.stdin is not None:  # it is a pipe
        process.stdin.write(order.worker_order)
    return Child(process, told)
