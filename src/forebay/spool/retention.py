"""The periodic clean-up: dead letters past their retention go, and free pages go back to the file system.

It is done in pieces, each of them a short piece of the spool's work, and commits go on in between.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from forebay.errors import ExportFailed, SpoolUnavailable
from forebay.spool import export
from forebay.spool.spool import Spool
from forebay.spool.writing import now_ms

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


async def run(spool: Spool, dead_retention_days: int, export_to: Export | None) -> None:
    """Clean up now and then for ever."""
    while True:
        try:
            expired = await clean_up(spool, now_ms() - dead_retention_days * DAY_MS, export_to)
        except SpoolUnavailable as error:
            log.warning("clean_up_failed", cause=str(error))
        except ExportFailed as error:
            log.error("dead_letters_not_exported", cause=str(error), consequence="none is deleted")  # noqa: TRY400
        else:
            if expired:
                log.info("dead_letters_expired", events=expired)
        tell_of_log(spool)
        await asyncio.sleep(INTERVAL_S)


async def clean_up(spool: Spool, died_before_ms: int, export_to: Export | None = None) -> int:
    """Clean up once, piece by piece; return how many dead letters went.

    Raises:
        ExportFailed: the letters that are left could not be written, and stay.
        SpoolUnavailable: the spool failed.
    """
    expired = 0
    while letters := await spool.list_expired(died_before_ms, LETTERS_MAX):
        if export_to is not None:
            await asyncio.to_thread(export.append, export_to.folder, export_to.name, letters, datetime.now(UTC))
        expired += await spool.expire([letter.id for letter in letters], died_before_ms)
    while await spool.vacuum():
        pass
    return expired


def tell_of_log(spool: Spool) -> None:
    """Say so where the write-ahead log has grown much larger than it should.

    It begins anew only when nobody reads from before its end, so one reader that stays makes it grow with every commit.
    """
    log_bytes = spool.measure_log()
    if log_bytes > LOG_BYTES_TOLD:
        log.warning("log_large", bytes=log_bytes, cause="somebody has been reading the spool for long")
