"""The spool: one connection, one thread that does all work on it, one piece at a time.

Invariants (numbers as in docs/architecture.md):
 1. `commit` reports success only after SQLite has synced the transaction.
 7. The file has one owner: the lock is taken before the database is opened and given up after it is closed.
Because all work goes through one queue, a read sees every commit that was asked for before it and none that was asked
for after it, and the answers come back to the event loop in that same order. Redelivery relies on this.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from forebay.errors import SpoolUnavailable, SpoolUnusable
from forebay.spool import adoption, database, writing
from forebay.spool.adoption import Portion
from forebay.spool.codec import BodyCodec
from forebay.spool.records import StoredGroup, Totals, Transaction

T = TypeVar("T")
Committed = Callable[[list[int] | SpoolUnavailable], None]


class Spool:
    """The owner's hold on a spool file.

    Attributes:
        last_group_id: the highest number of a group when the file was opened.
        totals: how much it held then.
        was_interrupted: whether the last owner did not close it in order.
        dead_bytes: what dead letters take, as of the last look for requests.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock, open the file and make the schema where there is none.

        Raises:
            SpoolUnusable: the file cannot be opened, or somebody else owns it.
        """
        self._path = path
        self._lock: IO[str] = database.lock(path)
        with database.closed_on_failure(self._lock):
            self._connection = database.connect(path)
            with database.closed_on_failure(self._connection):
                self._read_state()
        self._work: queue.SimpleQueue[tuple[writing.Work, Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; answers come to that loop."""
        self._loop = loop
        self._thread.start()

    def commit(self, transaction: Transaction, done: Committed) -> None:
        """Commit a transaction, then call `done` in the loop.

        It gets the stored bytes of the transaction's inserts and shrinks, or `SpoolUnavailable`, and then nothing of
        it was stored.
        """
        self._work.put((lambda connection, codec: writing.write(connection, codec, transaction), done))

    async def load(self, after_id: int, held: Container[int], room: tuple[int, int]) -> list[StoredGroup]:
        """Read the oldest groups behind `after_id` that are not held, within `room` (events, bytes).

        A group that was committed just before may have been put into memory while it was read. So what is held is
        looked at once more as soon as the answer is in the event loop: one step later such a group may already be
        settled, and it would come back without a row.

        Raises:
            GroupDamaged: the first of them cannot be read.
            SpoolUnavailable: they could not be read.
        """
        return await self._call(
            lambda connection, codec: writing.load(connection, codec, after_id, held, room),
            lambda groups: [group for group in groups if group.id not in held],
        )

    async def strike(self, group_ids: Sequence[int]) -> None:
        """Count a strike for each of some groups (`SpoolUnavailable` where that cannot be written)."""
        await self._call(lambda connection, codec: writing.strike(connection, codec, group_ids))

    async def take_requests(self) -> frozenset[str]:
        """Take what commands asked of the owner (`SpoolUnavailable` where that cannot be read)."""
        requests, self.dead_bytes = await self._call(writing.take_requests)
        return requests

    async def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        """Move marked dead letters into the new group `group_id`; return its events and stored bytes."""
        return await self._call(lambda connection, codec: writing.replay(connection, codec, group_id, events_max))

    async def adopt(self, portion: Portion, first_id: int) -> None:
        """Keep rows of another spool; its groups get numbers from `first_id` (`SpoolUnavailable`: nothing is kept)."""
        await self._call(lambda connection, _: adoption.keep(connection, portion, first_id))

    async def clean_up(self, died_before_ms: int, dead_max: int) -> tuple[int, bool]:
        """Do a bounded piece of the clean-up; return how many dead letters went, and whether there is more to do."""
        return await self._call(lambda connection, codec: writing.clean_up(connection, codec, died_before_ms, dead_max))

    def close(self) -> None:
        """Finish the work that is queued, close the file and give it up."""
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join()
        # An owner that could not do its work, or not even say that it ended, was interrupted.
        with contextlib.suppress(sqlite3.Error):
            writing.set_owner_at_work(self._connection, at_work=False)
        # Doing it again does nothing.
        self._connection.close()
        # Last: until here a second owner must not come in.
        self._lock.close()

    def _read_state(self) -> None:
        try:
            self.last_group_id = writing.last_group_id(self._connection)
            self.totals: Totals = writing.read_totals(self._connection)
            self.dead_bytes = self.totals.dead_bytes
            self.was_interrupted = writing.owner_at_work(self._connection)
        except sqlite3.Error as error:
            raise SpoolUnusable(f"DATABASE_URL: {self._path} cannot be read: {error}") from error
        # A disk that is full must not keep a server from delivering what it has.
        with contextlib.suppress(sqlite3.Error):
            writing.set_owner_at_work(self._connection, at_work=True)

    async def _call(
        self, work: Callable[[sqlite3.Connection, BodyCodec], T], hear: Callable[[T], T] = lambda result: result
    ) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: T | SpoolUnavailable) -> None:
            if future.cancelled():
                return
            if isinstance(result, SpoolUnavailable):
                future.set_exception(result)
            else:
                future.set_result(hear(result))

        self._work.put((work, done))
        return await future

    def _run(self) -> None:
        codec = BodyCodec()
        while (item := self._work.get()) is not None:
            work, done = item
            result: object
            try:
                result = work(self._connection, codec)
            except SpoolUnavailable as error:
                result = error
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
                result = SpoolUnavailable(f"the spool failed: {error}")
                result.__cause__ = error
            self._loop.call_soon_threadsafe(done, result)
