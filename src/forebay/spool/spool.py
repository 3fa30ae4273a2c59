"""The spool: one store, and one thread that does all work on it, one piece at a time.

Invariants (numbers as in docs/architecture.md):
 1. `commit` reports success only after SQLite has synced the transaction into the files that are at their paths. It
    reports `SpoolUnavailable` only if nothing of the transaction can come back.
 7. The file has one owner: the lock is taken before the database is opened and given up after it is closed.
 14. Nothing is built on a commit whose sync failed: the log is emptied first, or nothing is written any more.
Because all work goes through one queue, a read sees every commit that was asked for before it and none that was asked
for after it, and the answers come back to the event loop in that same order. Redelivery relies on this.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

import structlog

from forebay.errors import SpoolInDoubt, SpoolLost, SpoolUnavailable
from forebay.model import Entry
from forebay.spool import database, in_doubt
from forebay.spool.beside.requests import Burial
from forebay.spool.files import SpoolFiles, closed_on_failure
from forebay.spool.lock import OwnerLock
from forebay.spool.opening import open_spool
from forebay.spool.records import EVERY, StoredGroup, Transaction, Wanted
from forebay.spool.rescue import damage
from forebay.spool.reserve import Reserve, is_disk_full, unless_full
from forebay.spool.store import Store

log = structlog.get_logger("forebay.spool")

T = TypeVar("T")
Work = Callable[[Store], object]
Committed = Callable[[Mapping[int, int] | SpoolUnavailable], None]
Hear = Callable[[list[StoredGroup]], list[StoredGroup]]

DISK_FULL = "the disk is full"

MALFORMED = 400
"""The status of a refusal after which an event is sent in another form (RFC 9110, section 15.5.1)."""


class Spool:
    """The owner of a spool file.

    Attributes:
        last_group_id: the highest number of a group when the file was opened.
        totals: its totals then.
        dead_bytes: the bytes of dead letters, as of the last `take_requests`.
        lost: why nothing is written or read any more, and the process is to end; empty while all is well.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock and open the file, making it if there is none and rescuing its contents if it is damaged.

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
        self._open_files = opened.open_files
        self.last_group_id = opened.last_group_id
        self.totals = opened.totals
        self.dead_bytes = opened.totals.dead_bytes
        self.lost = ""
        self._change = ""
        self._on_lost: Callable[[], None] = lambda: None
        self._checker = damage.Checker(
            lambda: database.connect_to_read(path), lambda cause: self.submit(lambda _: self._find_damage(cause))
        )
        self._work: queue.SimpleQueue[tuple[Work, Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    @property
    def refusal(self) -> str:
        """Why no events are taken, whatever the request; empty while they are."""
        return self.lost or self._change or (DISK_FULL if self._reserve.given_up else "")

    def start(self, loop: asyncio.AbstractEventLoop, repair: Callable[[Entry], Entry] = lambda entry: entry) -> None:
        """Start the thread; answers come to that loop.

        `repair` returns an event in the form in which it is sent once it was refused as malformed.
        """
        self._loop = loop
        self._repair = repair
        self._thread.start()

    def guard(self, on_lost: Callable[[], None]) -> None:
        """Keep room for a full disk, and check the whole file for damage, beside the work.

        `on_lost` is called in the loop once the spool is damaged or in doubt, here or by any work. Nothing is written
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

        `hear` is called in the loop as soon as the result is there, before any later answer; its result is returned.

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

    def commit(self, transaction: Transaction, done: Committed, *, is_awaited: bool = True) -> None:
        """Commit a transaction, then call `done` in the loop; `is_awaited` if clients wait for some of its inserts.

        It gets the stored bytes by the number of each row that was inserted or shrunk, or `SpoolUnavailable`, and then
        nothing of it was stored; or `SpoolInDoubt`, and then that is unknown.
        """

        def write(store: Store) -> Mapping[int, int]:
            if transaction.inserts and (is_awaited or self._reserve.given_up):
                self._refuse_new()
            stored_bytes = store.write(transaction)
            if transaction.inserts and is_awaited and self._open_files.find_changed():
                # Before anything else is made of it: a 503 means that nothing was taken.
                store.take_back([group.id for group in transaction.inserts])
                raise SpoolUnavailable(self._compare_files())
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
        return await self.call(
            lambda store: [self._prepare(group) for group in store.load(after_id, left_out, room, wanted)], hear
        )

    async def load_trial(
        self,
        index: str,
        after_id: int,
        left_out: AbstractSet[int],
        room: tuple[int, int],
        hear: Hear = lambda groups: groups,
    ) -> list[StoredGroup]:
        """Read groups of an index, those first that were never refused; of the others those behind `after_id`.

        The other arguments are those of `load`.

        Raises:
            SpoolUnavailable: they could not be read.
        """
        return await self.call(
            lambda store: [self._prepare(group) for group in store.load_trial(index, after_id, left_out, room)], hear
        )

    async def take_requests(self) -> frozenset[str]:
        """Take the requests of commands, but for burials (`SpoolUnavailable` if they cannot be read).

        A caller that does so every second also finds out within a second that the files are not at their paths any
        more, and that a full disk has room again.
        """

        def take(store: Store) -> tuple[frozenset[str], int]:
            self._compare_files()
            self._make_room()
            return store.take_requests(), store.read_totals().dead_bytes

        requests, self.dead_bytes = await self.call(take)
        return requests

    async def list_burials(self) -> list[Burial]:
        """Return the burials that commands asked for and that are not done."""
        return [Burial.read(request) for request in await self.call(Store.list_burials)]

    async def forget_burial(self, burial: Burial) -> None:
        """Take note that a burial is done."""
        await self.call(lambda store: store.forget_request(burial.request))

    async def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        """Move dead letters that are requested for replay into a new group; return its events and stored bytes."""
        return await self.call(lambda store: store.replay(group_id, events_max))

    def measure_log(self) -> int:
        """Return the bytes of the write-ahead log, which grows while a reader stays in it."""
        try:
            return self._files.wal.stat().st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Finish the work that is queued, close the file and give it up; doing it again does nothing."""
        self._checker.end()
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join()
        # An owner that could not do its work was interrupted.
        if not self.lost:
            self._lock.note_closed()
        self._store.close()
        self._wal.close()
        # Last: until here a second owner must not come in.
        self._lock.close()

    def _prepare(self, group: StoredGroup) -> StoredGroup:
        """Return a group with its events as they are to be sent; here, as the event loop has no time for it."""
        if group.history.refused_status != MALFORMED:
            return group
        try:
            sent = [self._repair(entry) for entry in group.entries]
        except Exception:
            # A bug of ours must not keep them from being tried as they are.
            log.exception("events_not_repaired", group=group.id)
            return group
        pairs = zip(sent, group.entries, strict=True)
        return group._replace(entries=sent, originals={now: before for now, before in pairs if now is not before})

    def _refuse_new(self) -> None:
        """Take no new events while they could not be kept (`SpoolUnavailable`)."""
        if self.refusal:
            raise SpoolUnavailable(self.refusal)

    def _make_room(self) -> None:
        """Try to have the reserve again on a disk that was full."""
        if self._reserve.is_wanted():
            # Pages that the file does not need go back to the disk first.
            with unless_full():
                self._store.vacuum()
            self._store.write_log_back()
            self._reserve.take()

    def _compare_files(self) -> str:
        """Return what happened to the files at the spool's paths; empty while they are the open ones."""
        changed = self._open_files.find_changed()
        was, self._change = self._change, self._files.describe_change(changed) if changed else ""
        if self._change and not was:
            log.error("spool_files_changed", cause=self._change)
        elif was and not self._change:
            log.info("spool_files_back")
        if changed and self._files.absolute not in changed:
            self._leave_to_next_start()
        return self._change

    def _leave_to_next_start(self) -> None:
        """Write the log into the database, which is at its path, and nothing more.

        A process that opens the database now sees another log, index or lock: to write on beside it would do damage.
        """
        if not self._store.write_log_back():
            return  # a reader is in it; the next call tries again
        self.lost = self._change
        if self._files.wal in self._open_files.find_changed():
            # The next start would take it for the log of this database.
            with contextlib.suppress(OSError):
                self._files.move_wal_away()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, done = item
            self._loop.call_soon_threadsafe(done, self._do(work))

    def _do(self, work: Work) -> object:
        if self.lost:
            return SpoolLost(self.lost)
        try:
            return work(self._store)
        except SpoolUnavailable as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
            failure = self._fail(error)
            failure.__cause__ = error
            return failure

    def _fail(self, error: Exception) -> SpoolUnavailable:
        """Return an error that is true by then: that nothing was stored, or that this is unknown."""
        if damage.is_damage(error):
            self._find_damage(str(error))
        if is_disk_full(error):
            self._reserve.give_up(str(error))
            self._store.write_log_back()
        if not (in_doubt.was_cut_off(error) or in_doubt.may_be_committed(error)):
            return SpoolUnavailable(f"the spool failed: {error}")
        with self._checker.paused():
            is_certain = in_doubt.make_certain(error, self._store, self._files, self._wal)
        if is_certain:
            return SpoolUnavailable(f"the spool failed: {error}")
        self._lose(f"the disk failed in a commit: {error}")
        return SpoolInDoubt(self.lost)

    def _find_damage(self, cause: str) -> None:
        """Write nothing more: what is added to a damaged file may be lost, or make it worse."""
        if self.lost:
            return
        log.error("spool_damaged", cause=cause)
        # Without the marker the next start finds only the damage that opening the file meets.
        with contextlib.suppress(OSError):
            damage.leave_marker(self._files, cause)
        self._lose(f"the spool is damaged: {cause}")

    def _lose(self, cause: str) -> None:
        self.lost = cause
        self._loop.call_soon_threadsafe(self._on_lost)
