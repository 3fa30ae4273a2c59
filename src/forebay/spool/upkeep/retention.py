"""The periodic clean-up: dead letters past their retention go, and free pages go back to the file system.

It is done in short pieces of the spool's work, and commits go on in between.

A clock may be wrong for a while, and must not make a letter look old that is not. So a letter goes only if it has been
past its retention for a day in which the spool had an owner, by every sample of the clock in that day. The day is
counted by a clock that never jumps, and summed in the spool over restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from forebay.clock import now_ms
from forebay.errors import ExportFailed, SpoolUnavailable
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from forebay.spool.upkeep import expiry, export

log = structlog.get_logger("forebay.retention")

INTERVAL_S = 600.0
LETTERS_MAX = 500
"""The most dead letters that go at once. A client's commit waits no longer than that takes."""

LOG_BYTES_LARGE = 256 * 1024 * 1024
"""If the write-ahead log is larger, a warning tells that it cannot be written back."""

DAY_MS = 86_400_000


class Clocks(NamedTuple):
    """A clock that counts running time and never jumps, and the wall clock, which dates dead letters."""

    running_s: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = now_ms


CLOCKS = Clocks()


class Retention:
    """Decides which dead letters have been past their retention for long enough."""

    def __init__(self, spool: Spool, days: int, clocks: Clocks = CLOCKS) -> None:
        self._spool = spool
        self._days = days
        self._clocks = clocks
        self._noted_at_s = clocks.running_s()

    async def note_clocks(self) -> int | None:
        """Note the clocks; return the time before which a letter must have died to go now, or None if none may go.

        Raises:
            SpoolUnavailable: the spool failed; the next call counts the time until now.
        """
        now_s = self._clocks.running_s()
        ran_ms = int((now_s - self._noted_at_s) * 1000)
        wall_ms = self._clocks.wall_ms()
        lowest_ms = await self._spool.call(lambda store: expiry.note_clock(store, ran_ms, wall_ms))
        self._noted_at_s = now_s
        return None if lowest_ms is None else lowest_ms - self._days * DAY_MS


async def run(spool: Spool, dead_retention_days: int, export_dir: Path | None, clocks: Clocks = CLOCKS) -> None:
    """Clean up every ten minutes, for ever; with an `export_dir`, dead letters are written there before they go."""
    retention = Retention(spool, dead_retention_days, clocks)
    while True:
        try:
            warn_of_large_log(spool)
            expired = await clean_up(spool, await retention.note_clocks(), export_dir)
        except SpoolUnavailable as error:
            log.warning("clean_up_failed", cause=str(error))
        except ExportFailed as error:
            log.error("dead_letters_not_exported", cause=str(error), consequence="none is deleted")  # noqa: TRY400
        else:
            if expired:
                log.info("dead_letters_expired", events=expired)
        await asyncio.sleep(INTERVAL_S)


async def clean_up(spool: Spool, died_before_ms: int | None, export_dir: Path | None = None) -> int:
    """Clean up once, piece by piece; return the number of letters that went: those that died before a time.

    Raises:
        ExportFailed: the rest of the letters could not be exported, and stay.
        SpoolUnavailable: the spool failed.
    """
    expired = 0 if died_before_ms is None else await _expire(spool, died_before_ms, export_dir)
    while await spool.call(Store.vacuum):
        pass
    return expired


async def _expire(spool: Spool, died_before_ms: int, export_dir: Path | None) -> int:
    expired = 0
    while letters := await spool.call(lambda store: expiry.list_expired(store, died_before_ms, LETTERS_MAX)):
        if export_dir is not None:
            await asyncio.to_thread(export.append, export_dir, spool.name, letters, datetime.now(UTC))
        letter_ids = [letter.id for letter in letters]
        expired += await spool.call(partial(expiry.expire, letter_ids=letter_ids, died_before_ms=died_before_ms))
    return expired


def warn_of_large_log(spool: Spool) -> None:
    """Log a warning if the write-ahead log has grown much larger than it should.

    It begins anew only if nobody reads from before its end. So one reader that stays makes it grow with every commit.

    Raises:
        SpoolUnavailable: its size cannot be read.
    """
    try:
        log_bytes = spool.measure_log()
    except OSError as error:
        raise SpoolUnavailable(f"the size of the log cannot be read: {error}") from error
    if log_bytes > LOG_BYTES_LARGE:
        log.warning("log_large", bytes=log_bytes, cause="somebody has been reading the spool for long")
