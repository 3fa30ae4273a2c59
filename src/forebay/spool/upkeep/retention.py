"""The periodic clean-up: dead letters past their retention go, and free pages go back to the file system.

It is done in pieces, each of them a short piece of the spool's work, and commits go on in between.

A clock may be wrong for a while, and must not make a letter look old that is not. So one goes only once it has been
past its retention for a day in which the spool had an owner, by every look at the clock in that day. The day is counted
by a clock that never jumps, and summed in the spool over restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from forebay.clock import now_ms
from forebay.errors import ExportFailed, SpoolUnavailable
from forebay.spool.spool import Spool
from forebay.spool.upkeep import export

log = structlog.get_logger("forebay.retention")

INTERVAL_S = 600.0
LETTERS_MAX = 500
"""How many dead letters go at once: a commit of a client waits no longer than that takes."""

LOG_BYTES_TOLD = 256 * 1024 * 1024
"""From what size on an operator is told that the write-ahead log cannot be written back."""

DAY_MS = 86_400_000


class Export(NamedTuple):
    """Where dead letters are written to before they go, and what their files' names begin with."""

    folder: Path
    name: str


class Clocks(NamedTuple):
    """A clock that shows how long it ran and never jumps, and the one that says when a letter died."""

    running_s: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = now_ms


CLOCKS = Clocks()


class Retention:
    """How long dead letters are kept, and which of them have been past it for long enough."""

    def __init__(self, spool: Spool, days: int, clocks: Clocks = CLOCKS) -> None:
        self._spool = spool
        self._days = days
        self._clocks = clocks
        self._looked_at_s = clocks.running_s()

    async def look(self) -> int | None:
        """Look at the clocks; return before which time a letter must have died to go now, None where none may go.

        Raises:
            SpoolUnavailable: the spool failed; the time until now counts with the next look.
        """
        now_s = self._clocks.running_s()
        ran_ms = int((now_s - self._looked_at_s) * 1000)
        lowest_ms = await self._spool.note_clock(ran_ms, self._clocks.wall_ms())
        self._looked_at_s = now_s
        return None if lowest_ms is None else lowest_ms - self._days * DAY_MS


async def run(spool: Spool, dead_retention_days: int, export_to: Export | None, clocks: Clocks = CLOCKS) -> None:
    """Clean up now and then for ever."""
    retention = Retention(spool, dead_retention_days, clocks)
    while True:
        try:
            expired = await clean_up(spool, await retention.look(), export_to)
        except SpoolUnavailable as error:
            log.warning("clean_up_failed", cause=str(error))
        except ExportFailed as error:
            log.error("dead_letters_not_exported", cause=str(error), consequence="none is deleted")  # noqa: TRY400
        else:
            if expired:
                log.info("dead_letters_expired", events=expired)
        tell_of_log(spool)
        await asyncio.sleep(INTERVAL_S)


async def clean_up(spool: Spool, died_before_ms: int | None, export_to: Export | None = None) -> int:
    """Clean up once, piece by piece; return how many dead letters went, of those that died before a time.

    Raises:
        ExportFailed: the letters that are left could not be written, and stay.
        SpoolUnavailable: the spool failed.
    """
    expired = 0 if died_before_ms is None else await _expire(spool, died_before_ms, export_to)
    while await spool.vacuum():
        pass
    return expired


async def _expire(spool: Spool, died_before_ms: int, export_to: Export | None) -> int:
    expired = 0
    while letters := await spool.list_expired(died_before_ms, LETTERS_MAX):
        if export_to is not None:
            await asyncio.to_thread(export.append, export_to.folder, export_to.name, letters, datetime.now(UTC))
        expired += await spool.expire([letter.id for letter in letters], died_before_ms)
    return expired


def tell_of_log(spool: Spool) -> None:
    """Say so where the write-ahead log has grown much larger than it should.

    It begins anew only when nobody reads from before its end, so one reader that stays makes it grow with every commit.
    """
    log_bytes = spool.measure_log()
    if log_bytes > LOG_BYTES_TOLD:
        log.warning("log_large", bytes=log_bytes, cause="somebody has been reading the spool for long")
