"""Orphans: spools without a worker, since there are fewer workers than last time.

A worker without a listener empties them, one at a time, in a process that is started for each. It is the usual delivery
on that spool, and it ends when nothing is left to do. Then the files go, unless they hold dead letters. Those stay:
commands see all spools, and a worker is started again if a command replays a dead letter, or if one is past its
retention. So no row ever moves from one spool to another, and `kill -9` at any moment leaves each row in one spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from pathlib import Path

import structlog
import uvloop

from forebay.admin.peers import Peers
from forebay.admin.snapshot import Snapshot
from forebay.clock import now_ms
from forebay.errors import SpoolError, SpoolUnusable
from forebay.pipeline.pipeline import Pipeline
from forebay.server import Deliverer
from forebay.settings import Settings
from forebay.sinks.selection import make_sink
from forebay.spool.beside.inspection import inspect
from forebay.spool.files import SpoolFiles, find_spools
from forebay.spool.spool import Spool
from forebay.spool.upkeep.removal import remove_if_empty
from forebay.spool.upkeep.retention import DAY_MS
from forebay.telemetry.counters import Counters
from forebay.telemetry.logs import configure_logs
from forebay.workers.child import EXIT_FAILED
from forebay.workers.link import LEFT_SPOOLS_MAX, LeftSpools, Serving, SupervisorLink

log = structlog.get_logger("forebay.orphans")

POLL_S = 1.0
"""The time between two checks of a worker whether its orphan is done."""

BULKS_IN_MEMORY_MAX = 4
NICENESS = 10


def find_orphans(database: Path, workers: int) -> dict[int, Path]:
    """Return the spools beside `database` that belong to no worker, by number."""
    # If the database of one was removed, its log may still hold every row.
    spools = find_spools(database) | find_spools(database, end="-wal")
    return {number: path for number, path in spools.items() if number > workers}


def run(settings: Settings, folder: Path, left_spools: dict[str, str], turn_s: float, link: SupervisorLink) -> int:
    """Empty the orphan that has waited longest, if there is anything to do for one; return the exit code.

    `left_spools` are the reasons, by path, for which orphans could not be opened before. After `turn_s` it is the turn
    of another orphan that needs an owner.
    """
    configure_logs(settings.log_format, settings.log_level)
    orphans = find_orphans(settings.database_url, settings.workers)
    causes = {path: cause for path, cause in left_spools.items() if Path(path) in orphans.values()}
    for number, path in sorted(orphans.items(), key=lambda orphan: _last_owned_ns(orphan[1])):
        causes.pop(str(path), None)
        if not needs_owner(path, settings):
            continue
        try:
            spool = Spool(path)
        except SpoolUnusable as error:
            causes[str(path)] = str(error)
            continue
        _report_left(causes, link)
        worker = OrphanWorker(path, settings, turn_s, Peers(number, settings.workers, folder))
        return worker.run(spool, link) or _remove(path, causes, link)
    _report_left(causes, link)
    return 0


def needs_owner(path: Path, settings: Settings) -> bool:
    """Return whether there is anything to do for an orphan; False while it holds nothing but dead letters that wait."""
    try:
        with inspect(path) as spool:
            has_letters = bool(spool.summarize().totals.dead_letters)
            return not has_letters or spool.has_work(_expiry_ms(settings))
    except SpoolError:
        # An owner finds the cause, and may be able to rescue the spool.
        return True


class OrphanWorker:
    """Delivers the events of one orphan, without a listener."""

    def __init__(self, path: Path, settings: Settings, turn_s: float, peers: Peers) -> None:
        self._path = path
        self._settings = settings
        self._turn_s = turn_s
        self._peers = peers
        self._ending = asyncio.Event()

    def run(self, spool: Spool, link: SupervisorLink) -> int:
        """Work until nothing is left to do, or until told to end; return the exit code."""
        configure_logs(self._settings.log_format, self._settings.log_level, self._peers.number)
        # Workers that take events come first (nice(2)).
        os.nice(NICENESS)
        log.info("orphan_opened", events=spool.totals.events, dead_letters=spool.totals.dead_letters)
        try:
            with contextlib.closing(spool), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._deliver(spool, link))
        finally:
            self._peers.leave()

    async def _deliver(self, spool: Spool, link: SupervisorLink) -> int:
        settings = _limit(self._settings)
        deliverer = Deliverer(settings, spool, make_sink(settings), Counters())

        def observe() -> Snapshot:
            return deliverer.observe(self._peers.number, stopping=self._ending.is_set())

        deliverer.start(self._ending.set, self._peers.answer(observe))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._handle_signal, number)
        link.serve(Serving(deliverer.sink.location), self._peers, on_gone=self._ending.set)
        tasks = [asyncio.create_task(self._wait_done(deliverer.pipeline)), asyncio.create_task(self._ending.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            exit_code = await deliverer.stop()
        return exit_code

    def _handle_signal(self, number: int) -> None:
        """End in order at a first signal and at once at a second one, as a worker that takes events does."""
        if self._ending.is_set():
            os._exit(128 + number)
        self._ending.set()

    async def _wait_done(self, pipeline: Pipeline) -> None:
        """Wait until there is nothing to do for this orphan, or its turn is over and another one needs an owner."""
        loop = asyncio.get_running_loop()
        turn_ends_at = loop.time() + self._turn_s
        while True:
            await asyncio.sleep(POLL_S)
            # The pipeline knows whether events are left, without a look at the disk.
            if not pipeline.state.stored_events and not await asyncio.to_thread(self._has_work):
                return
            if loop.time() >= turn_ends_at:
                if await asyncio.to_thread(self._is_waited_for):
                    return
                turn_ends_at = loop.time() + self._turn_s

    def _has_work(self) -> bool:
        try:
            with inspect(self._path) as spool:
                return spool.has_work(_expiry_ms(self._settings))
        except SpoolError:
            return True

    def _is_waited_for(self) -> bool:
        orphans = find_orphans(self._settings.database_url, self._settings.workers).values()
        return any(needs_owner(path, self._settings) for path in orphans if path != self._path)


def _remove(path: Path, causes: dict[str, str], link: SupervisorLink) -> int:
    """Remove the files of an orphan if they are empty; return the exit code."""
    try:
        remove_if_empty(path)
    except SpoolError as error:
        _report_left({str(path): str(error), **causes}, link)
        return EXIT_FAILED
    log.info("orphan_closed", removed=not path.exists())
    return 0


def _report_left(causes: dict[str, str], link: SupervisorLink) -> None:
    link.report(LeftSpools(dict(itertools.islice(causes.items(), LEFT_SPOOLS_MAX))))


def _limit(settings: Settings) -> Settings:
    """Return the settings of a worker for an orphan: one bulk at a time, and few of them in memory."""
    return settings.model_copy(
        update={
            "bulk_workers": 1,
            "channel_events_max": min(settings.channel_events_max, BULKS_IN_MEMORY_MAX * settings.bulk_events_max),
            "channel_bytes_max": min(settings.channel_bytes_max, BULKS_IN_MEMORY_MAX * settings.bulk_bytes_max),
        }
    )


def _last_owned_ns(path: Path) -> int:
    """Return the time at which an orphan got its last owner: each one writes into the lock file."""
    try:
        return SpoolFiles(path).lock.stat().st_mtime_ns
    except OSError:
        return 0


def _expiry_ms(settings: Settings) -> int:
    """Return the time of death that separates dead letters past their retention from the rest."""
    return now_ms() - settings.dead_retention_days * DAY_MS
