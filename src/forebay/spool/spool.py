"""The spool: one store, and one thread that does all work on it, one piece at a time.

All work goes through one queue. So a read sees every commit that was asked for before it, and none that was asked for
after it. The answers come back to the event loop in the same order. Redelivery relies on this.

Invariants (numbers as in docs/architecture.md):
 1. `commit` reports success only after SQLite has synced the transaction into the files that are at their paths. It
    reports `SpoolUnavailable` only if nothing of the transaction can come back.
 7. The file has one owner: the lock is taken before the database is opened, and given up after it is closed.
 14. Nothing is built on a commit whose sync failed: the log is emptied first, or nothing is written any more.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

from forebay.errors import EventsTakenBack, SpoolLost, SpoolUnavailable
from forebay.model import Entry
from forebay.spool import database, loading, requests
from forebay.spool.beside.requests import Burial
from forebay.spool.files import SpoolFiles, closed_on_failure
from forebay.spool.guard import Guard
from forebay.spool.loading import EVERY, Wanted
from forebay.spool.lock import OwnerLock
from forebay.spool.opening import open_spool
from forebay.spool.records import StoredGroup, Transaction
from forebay.spool.rescue.damage import Checker
from forebay.spool.reserve import Reserve
from forebay.spool.store import Store

T = TypeVar("T")
Work = Callable[[Store], object]
Committed = Callable[[Mapping[int, int] | SpoolUnavailable], None]
Hear = Callable[[list[StoredGroup]], list[StoredGroup]]


class Spool:
    """The owner of a spool file.

    Attributes:
        last_group_id: the highest number of a group when the file was opened.
        totals: its totals then.
        dead_bytes: the bytes of dead letters, as of the last `take_requests`.
        refusal: why no events are taken, as the newest piece of work has shown; empty while they are.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock and open the file. It is made if there is none, and its contents are rescued if it is damaged.

        Raises:
            SpoolUnusable: the file cannot be opened, or another process owns it.
        """
        self._files = SpoolFiles(path)
        self._lock = OwnerLock(self._files)
        with closed_on_failure(self._lock):
            self._reserve = Reserve(self._files.reserve)
            opened = open_spool(self._files, self._lock, self._reserve)
        self._store = opened.store
        self._wal = opened.wal
        self.last_group_id = opened.last_group_id
        self.totals = opened.totals
        self.dead_bytes = opened.totals.dead_bytes
        self._checker = Checker(lambda: database.connect_to_read(path), self._report_damage)
        self._guard = Guard(self._files, opened, self._reserve, self._checker)
        self.refusal = self._guard.refusal
        self._on_lost: Callable[[], None] = lambda: None
        self._work: queue.SimpleQueue[tuple[Work, Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    @property
    def name(self) -> str:
        """The name of its database without the end, other than that of each other worker's."""
        return self._files.database.stem

    @property
    def lost(self) -> str:
        """Why nothing is written or read any more, until the next start; empty while all is well."""
        return self._guard.lost

    def start(self, loop: asyncio.AbstractEventLoop, repair: Callable[[Entry], Entry] = lambda entry: entry) -> None:
        """Start the thread; answers come to that loop.

        `repair` rewrites an event that the sink refused as malformed.
        """
        self._loop = loop
        self._repair = repair
        self._thread.start()

    def guard(self, on_lost: Callable[[], None]) -> None:
        """Keep room for a full disk, and check the whole file for damage, beside the work.

        `on_lost` is called in the loop if the check or any work finds the spool damaged or in doubt. Nothing is written
        from then on; the next start rescues all that can be read.
        """
        self._on_lost = on_lost
        self.submit(lambda _: self._reserve.take())
        self._checker.start()

    def submit(self, work: Work, done: Callable[[Any], None] = lambda _: None) -> None:
        """Do a piece of work in the spool's thread; `done` is called in the loop with its result or an error."""
        self._work.put((work, done))

    async def call(self, work: Callable[[Store], T], hear: Callable[[T], T] = lambda result: result) -> T:
        """Return the result of a piece of work in the spool's thread.

        `hear` gets it in the loop as soon as it is there, before any later answer; the result of `hear` is returned.

        Raises:
            SpoolUnavailable: the work failed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: T | SpoolUnavailable) -> None:
            if future.cancelled():
                return
            if isinstance(result, SpoolUnavailable):
                future.set_exception(result)
            else:
                future.set_result(hear(result))

        self.submit(work, done)
        return await future

    def commit(self, transaction: Transaction, done: Committed, awaited: Sequence[int] = ()) -> None:
        """Commit a transaction, then call `done` in the loop; `awaited` are those inserts for which clients wait.

        `done` gets the stored bytes by the number of each row that was inserted or shrunk. If it gets
        `SpoolUnavailable` instead, nothing was stored; if `EventsTakenBack`, all but the awaited rows; if
        `SpoolInDoubt`, nobody knows.
        """

        def write(store: Store) -> Mapping[int, int]:
            if transaction.inserts:
                self._guard.refuse_new(is_awaited=bool(awaited))
            stored_bytes = store.write(transaction)
            if awaited and self._guard.have_files_changed():
                # Before anything else: a 503 means that nothing was taken. What was settled stays so: rows have moved.
                store.take_back(awaited)
                raise EventsTakenBack(self._guard.check_files(), stored_bytes)
            return stored_bytes

        self.submit(write, done)

    async def load(
        self,
        after_id: int,
        left_out: AbstractSet[int],
        room: tuple[int, int],
        wanted: Wanted = EVERY,
        hear: Hear = lambda groups: groups,
    ) -> list[StoredGroup]:
        """Read the oldest wanted groups behind `after_id`, within `room` (events, bytes).

        Args:
            after_id: the row behind which to begin.
            left_out: rows that are not read: those in memory. It must not change meanwhile.
            room: the most events and bytes; the first group is read whatever its size.
            wanted: which groups.
            hear: as for `call`.

        Raises:
            GroupDamaged: the first of them cannot be read.
            SpoolUnavailable: they could not be read.
        """
        return await self._load(lambda store: loading.load(store, after_id, left_out, room, wanted), hear)

    async def load_trial(
        self,
        index: str,
        after_id: int,
        left_out: AbstractSet[int],
        room: tuple[int, int],
        hear: Hear = lambda groups: groups,
    ) -> list[StoredGroup]:
        """Read groups of an index: first those that were never refused, then refused ones behind `after_id`.

        The other arguments are those of `load`.

        Raises:
            SpoolUnavailable: they could not be read.
        """
        return await self._load(lambda store: loading.load_trial(store, index, after_id, left_out, room), hear)

    async def take_requests(self) -> frozenset[str]:
        """Take the requests of commands, but for burials.

        It also notices if the files have left their paths, and if a full disk has room again. So it is called every
        second.

        Raises:
            SpoolUnavailable: they could not be read.
        """

        def take(store: Store) -> tuple[frozenset[str], int]:
            self._guard.check_files()
            self._guard.make_room()
            return requests.take(store), store.read_totals().dead_bytes

        taken, self.dead_bytes = await self.call(take)
        return taken

    async def list_burials(self) -> list[Burial]:
        """Return the burials that commands asked for and that are not done."""
        return await self.call(requests.list_burials)

    async def forget_burial(self, burial: Burial) -> None:
        """Delete the request for a burial that is done."""
        await self.call(lambda store: requests.forget_burial(store, burial))

    async def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        """Move dead letters that are requested for replay into a new group; return its events and stored bytes."""
        return await self.call(lambda store: requests.replay(store, group_id, events_max))

    def measure_log(self) -> int:
        """Return the bytes of the write-ahead log, which grows while a reader stays in it."""
        return self._files.measure_wal()

    def close(self) -> None:
        """Finish the work that is queued, close the file and give it up; doing it again does nothing."""
        self._checker.end()
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join()
        # If the spool is lost, the next start shall know that its owner was interrupted.
        if not self.lost:
            self._lock.note_closed()
        self._store.close()
        self._wal.close()
        # Last: until now no second owner may come in.
        self._lock.close()

    async def _load(self, read: Callable[[Store], list[StoredGroup]], hear: Hear) -> list[StoredGroup]:
        return await self.call(lambda store: loading.repair_malformed(read(store), self._repair), hear)

    def _report_damage(self, cause: str) -> None:
        self.submit(lambda _: self._guard.find_damage(cause))

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, done = item
            had_to_end = self._guard.must_end
            result = self._do(work)
            # Once for each piece of work: every event asks for it.
            self.refusal = self._guard.refusal
            if self._guard.must_end and not had_to_end:
                self._loop.call_soon_threadsafe(self._on_lost)
            self._loop.call_soon_threadsafe(done, result)

    def _do(self, work: Work) -> object:
        if self.lost:
            return SpoolLost(self.lost)
        try:
            return work(self._store)
        except SpoolUnavailable as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
            failure = self._guard.explain(error)
            failure.__cause__ = error
            return failure
