"""The supervisor: starts the workers, starts one again if it ends or hangs, and passes on the signal to end.

It is a plain program without threads and without an event loop, so that it can fork. It holds the listening socket:
connections that nobody has taken yet outlive the worker that would have taken them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from forebay import server
from forebay.admin.peers import can_hold_sockets
from forebay.backoff import Backoff
from forebay.errors import SettingsError
from forebay.secret import resolve_secret
from forebay.settings import Settings
from forebay.sinks.selection import load_sink
from forebay.telemetry.logs import configure_logs
from forebay.tokens.selection import load_providers
from forebay.workers import orphans
from forebay.workers.child import PINGS_UNANSWERED_MAX, SIGNALS, Child, ProcessEnd, fork
from forebay.workers.link import LeftSpools, Serving, SupervisorLink
from forebay.workers.worker import run_worker

log = structlog.get_logger("forebay.supervisor")

ORPHANS = 0
"""The number of the worker that empties orphans."""

UPTIME_S_MIN = 10.0
"""A worker that ran for this long did not fail at its start."""

RESTARTS = Backoff(delay_s_min=0.5, delay_s_max=30.0)


class Intervals(NamedTuple):
    """The periods of the supervisor's work by the clock.

    Attributes:
        ping_s: between two pings; a worker hangs after six of these.
        orphans_s: until the next search for orphans, or the next try of one.
        orphan_turn_s: the longest turn of one orphan while others wait. Its events may wait for an operator, or its
            dead letters for the end of a day of running time, which is noted every ten minutes.
    """

    ping_s: float = 5.0
    orphans_s: float = 30.0
    orphan_turn_s: float = 1800.0


INTERVALS = Intervals()


def run(settings: Settings, intervals: Intervals = INTERVALS) -> int:
    """Serve with several processes until a signal ends them; return the exit code.

    Raises:
        SettingsError: a setting does not allow it: no secret can be kept, the port is taken, a file cannot be read.
    """
    configure_logs(settings.log_format, settings.log_level)
    secret = resolve_secret(settings)
    server.warn(settings, secret)
    with contextlib.closing(server.listen(settings)) as listener, _make_folder() as folder:
        load_sink(settings)
        load_providers(settings)
        # The memory so far stays shared with the workers, as no collection there goes through it.
        gc.collect()
        gc.freeze()
        return Supervisor(settings, secret, listener, folder, intervals).run()


def check(settings: Settings) -> None:
    """Do the same as the check of one process, and what several need beside it.

    Raises:
        SettingsError: a start would be refused.
    """
    with _make_folder():
        server.check(settings)


@contextlib.contextmanager
def _make_folder() -> Iterator[Path]:
    """Make the folder in which the processes find each other; it is removed afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="forebay-"))
    except OSError as error:
        raise SettingsError(
            f"FOREBAY_WORKERS: several processes need a folder for temporary files (TMPDIR): {error}"
        ) from error
    try:
        if not can_hold_sockets(folder):
            # Else the server would run, and nobody would hear from its workers.
            raise SettingsError(
                f"FOREBAY_WORKERS: several processes need a folder with a shorter path than {folder.parent} (TMPDIR)"
            )
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Restarts:
    """The delay before a worker starts again: none at first, and longer each time that it fails early."""

    def __init__(self) -> None:
        self._early_falls = 0

    def delay_s(self, uptime_s: float) -> float:
        """Return the seconds until the next start, after a process that ran for `uptime_s`."""
        self._early_falls = self._early_falls + 1 if uptime_s < UPTIME_S_MIN else 0
        return 0 if self._early_falls <= 1 else RESTARTS.whole_delay_s(self._early_falls - 1)


class Worker:
    """One worker: its process, if one runs, and else when the next one is started."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        self.start_at = 0.0
        self.has_served = False
        self.restarts = Restarts()

    @property
    def name(self) -> int | str:
        """Return the name in the log."""
        return self.number or "orphans"


class Supervisor:
    """Watches over the workers."""

    def __init__(
        self, settings: Settings, secret: str, listener: socket.socket, folder: Path, intervals: Intervals
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._listener = listener
        self._folder = folder
        self._intervals = intervals
        self._workers = [Worker(number) for number in range(settings.workers + 1)]
        self._left_spools: dict[str, str] = {}
        self._next_ping_at = 0.0
        self._is_ending = False
        self._exit_code = 0
        # Not epoll, which a child would share with this process.
        self._selector = selectors.PollSelector()
        self._signals, self._signalled = socket.socketpair()

    def run(self) -> int:
        """Keep every worker running until a signal ends the server; return the exit code."""
        self._catch_signals()
        while True:
            self._start_due()
            if self._is_ending and not self._children:
                return self._exit_code
            for key, _ in self._selector.select(self._wait_s()):
                if key.data is None:
                    self._handle_signals()
                else:
                    self._read_reports(key.data)
            self._reap()
            self._ping_due()

    @property
    def _children(self) -> list[Child]:
        return [worker.child for worker in self._workers if worker.child is not None]

    @property
    def _all_served(self) -> bool:
        return all(worker.has_served for worker in self._workers[1:])

    def _catch_signals(self) -> None:
        for end in (self._signals, self._signalled):
            end.settimeout(0)
        self._selector.register(self._signals, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            # The number comes through the socket, so a signal interrupts nothing.
            signal.signal(number, lambda *_: None)

    def _wait_s(self) -> float:
        """Return the seconds until something is to be done, unless a signal or a report comes first."""
        starts = [worker.start_at for worker in self._workers if self._is_startable(worker)]
        return max(0.0, min([self._next_ping_at, *starts]) - time.monotonic())

    def _is_startable(self, worker: Worker) -> bool:
        # Orphans wait until the workers serve: clients come first.
        may_start = worker.number != ORPHANS or self._all_served
        return worker.child is None and may_start and not self._is_ending

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if self._is_startable(worker) and worker.start_at <= now:
                if worker.number != ORPHANS or self._find_orphans():
                    self._start(worker)
                else:
                    worker.start_at = now + self._intervals.orphans_s

    def _find_orphans(self) -> bool:
        found = orphans.find_orphans(self._settings.database_url, self._settings.workers)
        if not found:
            self._left_spools = {}
        return bool(found)

    def _start(self, worker: Worker) -> None:
        def work(end: socket.socket) -> int:
            link = SupervisorLink(end)
            if worker.number == ORPHANS:
                self._listener.close()
                turn_s = self._intervals.orphan_turn_s
                return orphans.run(self._settings, self._folder, self._left_spools, turn_s, link)
            return run_worker(worker.number, self._settings, self._secret, self._listener, self._folder, link)

        name = f"forebay-{worker.name}"
        try:
            worker.child = fork(name, work, self._release)
        except OSError as error:
            log.error("worker_not_started", worker=worker.name, cause=str(error))  # noqa: TRY400 - the cause says it all
            worker.start_at = time.monotonic() + worker.restarts.delay_s(0)
            return
        self._selector.register(worker.child.link, selectors.EVENT_READ, worker)
        if worker.number != ORPHANS:
            log.info("worker_started", worker=worker.number, pid=worker.child.pid)

    def _release(self) -> None:
        """Close the supervisor's files in a child: open there, they would hide the supervisor's end from the others."""
        self._selector.close()
        self._signals.close()
        self._signalled.close()
        for child in self._children:
            child.link.close()

    def _read_reports(self, worker: Worker) -> None:
        child = worker.child
        if child is None:
            return  # it was found to have ended just before
        for report in child.read_reports():
            match report:
                case Serving(sink_location):
                    child.is_serving = True
                    self._note_service(worker, sink_location)
                case LeftSpools(causes):
                    self._note_left(causes)

    def _note_service(self, worker: Worker, sink_location: str) -> None:
        if not worker.has_served and worker.number != ORPHANS:
            worker.has_served = True
            if self._all_served:
                server.announce(self._settings, self._secret, self._listener, sink_location)

    def _note_left(self, causes: dict[str, str]) -> None:
        """Report why orphans are not emptied: in the log once, in health as long as it is so."""
        for path, cause in causes.items():
            if self._left_spools.get(path) != cause:
                log.error("spool_left", cause=cause)
        self._left_spools = causes
        self._next_ping_at = 0.0

    def _ping_due(self) -> None:
        now = time.monotonic()
        if now < self._next_ping_at:
            return
        self._next_ping_at = now + self._intervals.ping_s
        for worker in self._workers:
            child = worker.child
            if child is not None and child.hangs:
                silent_s = round(PINGS_UNANSWERED_MAX * self._intervals.ping_s, 1)
                log.error("worker_hangs", worker=worker.name, pid=child.pid, silent_s=silent_s)
                # One that hangs would not handle another signal.
                child.kill()
            elif child is not None:
                child.ping(tuple(self._left_spools.values()))

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.child is not None and (end := worker.child.find_end()) is not None:
                # It may have reported before its end.
                self._read_reports(worker)
                child, worker.child = worker.child, None
                self._selector.unregister(child.link)
                child.link.close()
                self._note_end(worker, end, did_serve=child.is_serving)

    def _note_end(self, worker: Worker, end: ProcessEnd, *, did_serve: bool) -> None:
        if self._is_ending:
            # A worker that was still starting knows no signal yet, and has nothing in memory.
            if end.exit_code not in (0, -signal.SIGTERM):
                log.error("worker_failed", worker=worker.name, cause=end.cause)
                self._exit_code = self._exit_code or 1
        elif worker.number == ORPHANS and end.exit_code == 0:
            worker.start_at = time.monotonic() + (0 if did_serve else self._intervals.orphans_s)
        elif self._is_refusal(worker, end):
            self._exit_code = end.exit_code
            self._end()
        else:
            delay_s = worker.restarts.delay_s(end.uptime_s)
            log.warning(
                "worker_fell", worker=worker.name, cause=end.cause, uptime_s=round(end.uptime_s, 1), again_in_s=delay_s
            )
            worker.start_at = time.monotonic() + delay_s

    def _is_refusal(self, worker: Worker, end: ProcessEnd) -> bool:
        """Return whether a first start has failed for a reason that the next start would meet too."""
        return not worker.has_served and not self._all_served and end.exit_code > 0

    def _handle_signals(self) -> None:
        """End in order; at the second signal, at once: events that are not delivered are in the spools."""
        for number in self._signals.recv(1024):
            if number == signal.SIGCHLD:
                continue
            if self._is_ending:
                for child in self._children:
                    child.kill()
                shutil.rmtree(self._folder, ignore_errors=True)
                os._exit(128 + number)
            self._end()

    def _end(self) -> None:
        self._is_ending = True
        # From here on nobody would take the connections that come in.
        self._listener.close()
        for child in self._children:
            child.end()
