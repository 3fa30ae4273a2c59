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

import structlog

from forebay.errors import SpoolLost, SpoolUnavailable
from forebay.spool import adoption, damage, database, marks, writing
from forebay.spool.adoption import Portion
from forebay.spool.codec import BodyCodec
from forebay.spool.opening import open_spool
from forebay.spool.records import ExpiredLetter, StoredGroup, Transaction
from forebay.spool.reserve import Reserve, is_disk_full

log = structlog.get_logger("forebay.spool")

T = TypeVar("T")
Committed = Callable[[list[int] | SpoolUnavailable], None]


class Spool:
    """The owner's hold on a spool file.

    Attributes:
        last_group_id: the highest number of a group when the file was opened.
        totals: how much it held then.
        was_interrupted: whether the last owner did not close it in order.
        dead_bytes: what dead letters take, as of the last look for requests.
        damage: why nothing is written or read any more, empty while the file is sound.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock and open the file, making it where there is none and saving what it holds where it is damaged.

        Raises:
            SpoolUnusable: the file cannot be opened, or somebody else owns it.
        """
        self._path = path
        self._lock: IO[str] = database.lock(path)
        with database.closed_on_failure(self._lock):
            self._reserve = Reserve(path)
            opened = open_spool(path, self._lock, self._reserve)
        self._connection = opened.connection
        self.last_group_id = opened.last_group_id
        self.totals = opened.totals
        self.was_interrupted = opened.was_interrupted
        self.dead_bytes = opened.totals.dead_bytes
        self.damage = ""
        self._on_damage: Callable[[], None] = lambda: None
        self._checking: sqlite3.Connection | None = None
        self._work: queue.SimpleQueue[tuple[writing.Work, Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; answers come to that loop."""
        self._loop = loop
        self._thread.start()

    def guard(self, on_damage: Callable[[], None]) -> None:
        """Keep room for a full disk, and look through the whole file for damage, beside the work.

        `on_damage` is called in the loop once damage is found, here or by any work. Nothing is written from then on;
        the next start saves what can be read.
        """
        self._on_damage = on_damage
        self._work.put((lambda _connection, _codec: self._reserve.take(), lambda _: None))
        threading.Thread(target=self._check, name="spool-check", daemon=True).start()

    def commit(self, transaction: Transaction, done: Committed) -> None:
        """Commit a transaction, then call `done` in the loop.

        It gets the stored bytes of the transaction's inserts and shrinks, or `SpoolUnavailable`, and then nothing of
        it was stored.
        """

        def write(connection: sqlite3.Connection, codec: BodyCodec) -> list[int]:
            if self._reserve.is_wanted():
                # What the file does not need goes back to the disk first.
                with contextlib.suppress(sqlite3.OperationalError):
                    writing.vacuum(connection)
                writing.write_log_back(connection)
                self._reserve.take()
            if transaction.inserts and self._reserve.given_up:
                raise SpoolUnavailable("the disk is full")
            return writing.write(connection, codec, transaction)

        self._work.put((write, done))

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

    async def list_expired(self, died_before_ms: int, letters_max: int) -> list[ExpiredLetter]:
        """Read a bounded piece of the dead letters that died before that moment."""
        return await self._call(
            lambda connection, codec: writing.list_expired(connection, codec, died_before_ms, letters_max)
        )

    async def expire(self, letter_ids: Sequence[int], died_before_ms: int) -> int:
        """Delete dead letters that were listed, unless something became of them since; return how many went."""
        return await self._call(lambda connection, codec: writing.expire(connection, codec, letter_ids, died_before_ms))

    async def note_clock(self, ran_ms: int, clock_ms: int) -> int | None:
        """Add to the running time; return the lowest clock of a whole day of it, or None before there was one."""
        return await self._call(lambda connection, codec: writing.note_clock(connection, codec, ran_ms, clock_ms))

    async def vacuum(self) -> bool:
        """Give a bounded number of free pages back to the file system; return whether there may be more."""
        return await self._call(lambda connection, _codec: writing.vacuum(connection))

    def measure_log(self) -> int:
        """Return the bytes of the write-ahead log, which grows while anybody reads for long."""
        try:
            return self._path.resolve().with_name(f"{self._path.resolve().name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Finish the work that is queued, close the file and give it up."""
        if self._checking is not None:
            self._checking.interrupt()
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join()
        # An owner that could not do its work, or not even say that it ended, was interrupted.
        if not self.damage:
            with contextlib.suppress(sqlite3.Error):
                writing.set_owner_at_work(self._connection, at_work=False)
        # Doing it again does nothing.
        self._connection.close()
        # Last: until here a second owner must not come in.
        self._lock.close()

    def _check(self) -> None:
        cause = ""
        try:
            with contextlib.closing(damage.connect_to_check(self._path)) as self._checking:
                cause = damage.check(self._checking)
        except sqlite3.Error as error:
            cause = str(error) if damage.is_damage(error) else ""
        finally:
            self._checking = None
        if cause:
            self._work.put((lambda _connection, _codec: self._find_damage(cause), lambda _: None))

    def _find_damage(self, cause: str) -> None:
        """Write nothing more: what is added to a damaged file may be lost, or make it worse."""
        if self.damage:
            return
        self.damage = cause
        log.error("spool_damaged", cause=cause)
        # Without the mark the next start looks for damage itself, and finds all but the least of it.
        with contextlib.suppress(OSError):
            marks.mark(self._path, cause)
        self._loop.call_soon_threadsafe(self._on_damage)

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
            self._loop.call_soon_threadsafe(done, self._do(work, codec))

    def _do(self, work: writing.Work, codec: BodyCodec) -> object:
        if self.damage:
            return SpoolLost(f"the spool is damaged: {self.damage}")
        try:
            return work(self._connection, codec)
        except SpoolUnavailable as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
            if damage.is_damage(error):
                self._find_damage(str(error))
            elif is_disk_full(error):
                self._reserve.give_up(str(error))
                writing.write_log_back(self._connection)
            failure = SpoolUnavailable(f"the spool failed: {error}")
            failure.__cause__ = error
            return failure
