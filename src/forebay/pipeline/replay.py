"""What commands ask of the owner of the spool: a pass of redelivery now, and dead letters back among the pending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from forebay.errors import SpoolUnavailable
from forebay.pipeline.journal import Journal

log = structlog.get_logger("forebay.redelivery")

POLL_S = 1.0
"""How often the requests of commands are looked for."""

REPLAY_EVENTS_MAX = 1000
"""How many dead letters go into one group."""


class RequestStore(Protocol):
    """The part of the spool that requests are read from."""

    async def take_requests(self) -> frozenset[str]:
        """Take what commands asked for."""

    async def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        """Move dead letters back."""


class Replay:
    """Does what commands ask for.

    Attributes:
        on_asked: called when a command asked for something: whatever it was, a pass does no harm.
        on_replayed: called when dead letters have become pending.
    """

    def __init__(self, store: RequestStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self.on_asked: Callable[[], None] = lambda: None
        self.on_replayed: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Watch for requests for ever."""
        # A process that ended, or a spool that failed, may have left off in the middle of a replay.
        left_off = True
        told = ""
        while True:
            try:
                if await self._store.take_requests():
                    left_off = True
                    self.on_asked()
                if left_off:
                    await self._replay()
                    left_off = False
            except SpoolUnavailable as error:
                if str(error) != told:
                    log.warning("spool_unavailable", cause=str(error))
                told = str(error)
            else:
                told = ""
            await asyncio.sleep(POLL_S)

    async def _replay(self) -> None:
        while True:
            events, stored_bytes = await self._store.replay(self._journal.new_id(), REPLAY_EVENTS_MAX)
            if not events:
                return
            self._journal.ledger.store(events, stored_bytes)
            self.on_replayed()
            log.info("dead_letters_replayed", events=events)
