"""The periodic clean-up: dead letters past their retention go, and free pages go back to the file system."""

from __future__ import annotations

import asyncio

import structlog

from forebay.errors import SpoolUnavailable
from forebay.spool.spool import Spool
from forebay.spool.writing import now_ms

log = structlog.get_logger("forebay.retention")

INTERVAL_S = 600.0
DEAD_MAX = 500
"""How many dead letters go at once: a commit of a client waits no longer than that takes."""

DAY_MS = 86_400_000


async def run(spool: Spool, dead_retention_days: int) -> None:
    """Clean up now and then for ever."""
    while True:
        try:
            expired = await clean_up(spool, now_ms() - dead_retention_days * DAY_MS)
        except SpoolUnavailable as error:
            log.warning("clean_up_failed", cause=str(error))
        else:
            if expired:
                log.info("dead_letters_expired", events=expired)
        await asyncio.sleep(INTERVAL_S)


async def clean_up(spool: Spool, died_before_ms: int) -> int:
    """Clean up once, piece by piece; return how many dead letters went."""
    expired, more = 0, True
    while more:
        gone, more = await spool.clean_up(died_before_ms, DEAD_MAX)
        expired += gone
    return expired
