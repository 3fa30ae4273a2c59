"""Orphans: spools of slots that there is no worker for any more, since there are fewer workers than last time.

A worker without a listener empties them, one at a time, in a process that is started for each. It is the usual delivery
on that spool, and it ends when nothing is left to do. Then the files go, unless dead letters are left. Those stay where
they are: commands see all spools, and a worker is started again when a command wants them back, or when they are past
their retention. So no row ever moves from one spool to another, and `kill -9` at any moment leaves each in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import structlog
import uvloop

from forebay.admin.peers import Peers
from forebay.admin.snapshot import Snapshot
from forebay.clock import now_ms
from forebay.errors import SpoolError, SpoolUnusable
from forebay.server import Deliverer
from forebay.settings import Settings
from forebay.spool.beside.inspection import inspect
from forebay.spool.files import SpoolFiles
from forebay.spool.spool import Spool
from forebay.spool.spool_paths import find_spools
from forebay.spool.upkeep.removal import remove_if_empty
from forebay.spool.upkeep.retention import DAY_MS
from forebay.telemetry.logs import configure_logs
from forebay.workers.link import LeftSpools, Serving, SupervisorLink

log = structlog.get_logger("forebay.orphans")

POLL_S = 1.0
"""How often a worker looks whether its orphan is done."""

TURN_S = 1800.0
"""How long one orphan keeps the others waiting.

Its events may wait for an operator, or its dead letters for the end of a day of running time, which is noted every ten
minutes.
"""

BULKS_IN_MEMORY_MAX = 4
NICENESS = 10
"""The system runs those that take events first (nice(2))."""


def find_orphans(database: Path, workers: int) -> dict[int, Path]:
    """Return the spools beside `database` that belong to no worker, by slot."""
    # Of one whose database was removed its log may hold everything.
    spools = find_spools(database) | find_spools(database, end="-wal")
    return {slot: path for slot, path in spools.items() if slot > workers}


def run(settings: Settings, folder: Path, left_spools: dict[str, str], link: SupervisorLink) -> int:
    """Empty the orphan that has waited longest, if there is anything to do for one; return the exit code.

    `left_spools` are the reasons, by path, for which orphans could not be opened before.
    """
    configure_logs(settings.log_format, settings.log_level)
    orphans = find_orphans(settings.database_url, settings.workers)
    causes = {path: cause for path, cause in left_spools.items() if Path(path) in orphans.values()}
    for slot, path in sorted(orphans.items(), key=lambda orphan: _last_owned_ns(orphan[1])):
        causes.pop(str(path), None)
        if not needs_owner(path, settings.dead_retention_days):
            continue
        try:
            spool = Spool(path)
        except SpoolUnusable as error:
            causes[str(path)] = str(error)
            continue
        link.report(LeftSpools(causes))
        return _empty(spool, path, settings, Peers(slot, settings.workers, folder), link)
    link.report(LeftSpools(causes))
    return 0


def needs_owner(path: Path, dead_retention_days: int) -> bool:
    """Return whether there is anything to do for an orphan; False while it holds nothing but dead letters that wait."""
    try:
        with inspect(path) as spool:
            has_letters = bool(spool.summarize().totals.dead_letters)
            return not has_letters or spool.has_work(now_ms() - dead_retention_days * DAY_MS)
    except SpoolError:
        # Its owner can do more about that, and knows better what is wrong.
        return True


def limit(settings: Settings) -> Settings:
    """Return the settings of a worker for an orphan: one bulk at a time, and a few in memory."""
    return settings.model_copy(
        update={
            "bulk_workers": 1,
            "channel_events_max": min(settings.channel_events_max, BULKS_IN_MEMORY_MAX * settings.bulk_events_max),
            "channel_bytes_max": min(settings.channel_bytes_max, BULKS_IN_MEMORY_MAX * settings.bulk_bytes_max),
        }
    )


def _last_owned_ns(path: Path) -> int:
    """Return when the orphan had an owner last: each writes into the lock file."""
    try:
        return SpoolFiles(path).lock.stat().st_mtime_ns
    except OSError:
        return 0


def _empty(spool: Spool, path: Path, settings: Settings, peers: Peers, link: SupervisorLink) -> int:
    """Deliver everything in a spool, and remove it if nothing is left; return the exit code."""
    configure_logs(settings.log_format, settings.log_level, peers.slot)
    os.nice(NICENESS)
    log.info("orphan_opened", path=str(path), events=spool.totals.events, dead_letters=spool.totals.dead_letters)
    try:
        with contextlib.closing(spool), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            exit_code = runner.run(_deliver(spool, path, settings, peers, link))
        if not exit_code:
            remove_if_empty(path)
    except SpoolError as error:
        log.warning("orphan_not_removed", path=str(path), cause=str(error))
        return 0
    finally:
        peers.leave()
    log.info("orphan_closed", path=str(path), removed=not path.exists())
    return exit_code


async def _deliver(spool: Spool, path: Path, settings: Settings, peers: Peers, link: SupervisorLink) -> int:
    """Deliver until nothing is left to do, or until told to end; return the exit code."""
    ending = asyncio.Event()
    deliverer = Deliverer(limit(settings), spool)

    def observe() -> Snapshot:
        return deliverer.observe(peers.slot, stopping=ending.is_set())

    deliverer.start(ending.set, peers.answer(observe))
    _end_by_signal(ending)
    link.serve(Serving(deliverer.sink.place), peers, on_gone=ending.set)
    done = asyncio.create_task(_wait_done(deliverer, path, settings))
    try:
        await asyncio.wait([done, asyncio.create_task(ending.wait())], return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            done.result()
    finally:
        done.cancel()
        exit_code = await deliverer.stop()
    return exit_code


def _end_by_signal(ending: asyncio.Event) -> None:
    """End in order at a first signal and at once at a second one, as a worker that takes events."""

    def hear(number: int) -> None:
        if ending.is_set():
            os._exit(128 + number)
        ending.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, hear, number)


async def _wait_done(deliverer: Deliverer, path: Path, settings: Settings) -> None:
    """Wait until there is nothing to do for this orphan, or its turn is over and there is something for another."""
    loop = asyncio.get_running_loop()
    turn_ends_at = loop.time() + TURN_S
    days = settings.dead_retention_days
    while True:
        await asyncio.sleep(POLL_S)
        if not deliverer.pipeline.state.stored_events and not await asyncio.to_thread(_has_work, path, days):
            return
        if loop.time() >= turn_ends_at:
            orphans = find_orphans(settings.database_url, settings.workers).values()
            others = [other for other in orphans if other != path]
            if any([await asyncio.to_thread(needs_owner, other, days) for other in others]):
                return
            turn_ends_at = loop.time() + TURN_S


def _has_work(path: Path, dead_retention_days: int) -> bool:
    try:
        with inspect(path) as spool:
            return spool.has_work(now_ms() - dead_retention_days * DAY_MS)
    except SpoolError:
        return True
