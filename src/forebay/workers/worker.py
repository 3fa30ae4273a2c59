"""One worker: a server process that the supervisor started.

It takes its order from its standard input. That stays open as long as the supervisor lives; when it ends, so does the
worker, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import sys

import structlog

from forebay import server
from forebay.admin.siblings import Siblings
from forebay.errors import ForebayError, SettingsError
from forebay.http_server import HttpServer
from forebay.sinks.port import Sink
from forebay.telemetry.logs import configure_logs
from forebay.workers.orders import SERVING, WorkerOrder
from forebay.workers.shares import take_share

log = structlog.get_logger("forebay.worker")

EXIT_FAILED, EXIT_WRONG_SETTING = 1, 2
"""As the command line ends."""


class Worker:
    """The process of one slot."""

    def __init__(self, slot: int, order: WorkerOrder, told: int) -> None:
        self._order = order
        self._told = told
        self._siblings = Siblings(slot, order.settings.workers, order.folder)
        self._settings = take_share(order.settings, slot)
        self._alone = False

    def run(self) -> int:
        """Serve until told to end; return the exit code."""
        listener = socket.socket(fileno=self._order.listener)
        try:
            return server.work(self._settings, self._order.secret, listener, self._siblings, self._tell)
        except ForebayError as error:
            log.error("worker_refused", cause=str(error))  # noqa: TRY400 - the cause says it all
            return EXIT_WRONG_SETTING if isinstance(error, SettingsError) else EXIT_FAILED
        finally:
            if self._alone:
                self._siblings.leave()

    def _tell(self, http_server: HttpServer, _: Sink) -> None:
        """Tell the supervisor that this worker serves, and watch for its end."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._end_alone, http_server)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._told, SERVING)
        os.close(self._told)

    def _end_alone(self, http_server: HttpServer) -> None:
        """End, since nobody would start this worker again."""
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        log.error("supervisor_gone")
        self._alone = True
        http_server.end()


def main() -> int:
    """Be the worker that the command line and standard input describe; return the exit code."""
    slot, told = int(sys.argv[1]), int(sys.argv[2])
    order: WorkerOrder = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the supervisor
    configure_logs(order.settings.log_format, order.settings.log_level, slot)
    return Worker(slot, order, told).run()


if __name__ == "__main__":
    sys.exit(main())
