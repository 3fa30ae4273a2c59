"""Adoption: takes over spools that have lost their owner, slowly, so that nobody who sends events notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from forebay.errors import SpoolUnavailable, SpoolUnusable
from forebay.pipeline.pipeline import State
from forebay.spool.adoption import Orphan, Portion, find_orphans

log = structlog.get_logger("forebay.adoption")

T = TypeVar("T")

LOOK_S = 30.0
"""How often orphans are looked for that could not be had, or not be emptied, before."""

SHARE_MAX = 0.2
"""How much of its time the spool's thread may give to this: commits wait while a portion is kept."""

FULL_S = 1.0


class Adopter(Protocol):
    """The part of the pipeline that takes over rows."""

    @property
    def state(self) -> State:
        """Return how much there is."""

    async def adopt(self, portion: Portion) -> None:
        """Take over rows (`SpoolUnavailable`: nothing was kept)."""


class Adoption:
    """Empties the orphans that fall to one worker, then removes their files.

    All work on orphans is done by one thread, so that an orphan is closed only behind what was asked of it before.
    """

    def __init__(self, adopter: Adopter, stored_bytes_max: int) -> None:
        self._adopter = adopter
        self._stored_bytes_max = stored_bytes_max
        self._thread = ThreadPoolExecutor(1, "adoption")
        self._causes: dict[Path, str] = {}

    @property
    def causes(self) -> list[str]:
        """Return why orphans are left where they are, one line each."""
        return list(self._causes.values())

    async def run(self, path: Path, slot: int, workers: int) -> None:
        """Take over, for ever, the orphans beside a spool that fall to the worker of a slot."""
        while True:
            orphans = await self._call(partial(find_orphans, path, slot, workers))
            self._causes = {orphan: cause for orphan, cause in self._causes.items() if orphan in orphans}
            for orphan in orphans:
                await self._try_empty(orphan)
            await asyncio.sleep(LOOK_S)

    async def _try_empty(self, path: Path) -> None:
        try:
            await self._empty(path)
        except SpoolUnusable as error:
            self._complain(path, str(error))
        except SpoolUnavailable as error:
            log.warning("adoption_interrupted", path=str(path), cause=str(error))
        else:
            self._causes.pop(path, None)

    async def _empty(self, path: Path) -> None:
        orphan = await self._call(partial(Orphan, path))
        events = dead_letters = 0
        try:
            await self._wait_room()
            while (portion := await self._call(orphan.take)) is not None:
                began_at = time.perf_counter()
                await self._adopter.adopt(portion)
                took_s = time.perf_counter() - began_at
                await self._let_go(orphan, portion)
                events += portion.events
                dead_letters += len(portion.letters)
                await asyncio.sleep(took_s * (1 / SHARE_MAX - 1))
                await self._wait_room()
            await self._call(orphan.remove)
        finally:
            # Not awaited: a shutdown would cancel what the thread has not begun.
            self._thread.submit(orphan.close)
        log.info("spool_adopted", path=str(path), events=events, dead_letters=dead_letters)

    async def _let_go(self, orphan: Orphan, portion: Portion) -> None:
        """Delete what is kept here, for as long as it takes: to take it once more would fill the disk with copies."""
        while True:
            try:
                await self._call(partial(orphan.let_go, portion))
            except SpoolUnusable as error:
                self._complain(orphan.path, str(error))
                await asyncio.sleep(LOOK_S)
            else:
                return

    def _complain(self, path: Path, cause: str) -> None:
        """Tell it in the log once, and in health for as long as it is so."""
        if self._causes.get(path) != cause:
            log.error("spool_left", cause=cause)
        self._causes[path] = cause

    async def _wait_room(self) -> None:
        """Wait while the spool is half full: what it takes over must not be what keeps events out."""
        while self._adopter.state.stored_bytes > self._stored_bytes_max / 2:  # noqa: ASYNC110 - nobody would tell
            await asyncio.sleep(FULL_S)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
