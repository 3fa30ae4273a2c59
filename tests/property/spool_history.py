"""A spool's history: lives of random commits on a disk that fails, each of which ends at a step that nobody expects.

The spool's answers decide what the next life must find. It is kept as a dictionary: the bytes of each group and
each dead letter.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import queue
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast
from unittest import mock

from forebay.errors import SpoolInDoubt, SpoolLost, SpoolUnavailable, SpoolUnusable
from forebay.history import DeadLetter, History
from forebay.model import Entry, join_entries
from forebay.spool.codec import GroupCodec
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from property.disk_model import Disk, Luck
from property.faulty_disk import FaultyDisk, Picture
from testbed.servers.faulty_vfs import FaultyFiles
from unit.pipeline.fakes import make_entry

NAME = "spool.db"
PATIENCE_S = 60.0
LIVES_MAX = 6
BATCHES_MAX = 10
EVENTS_MAX = 1000
OPENING_STEPS = 90
LIFE_STEPS = 400

TOTALS = "SELECT groups, events, stored_bytes, dead_letters, dead_bytes FROM totals"
COUNTED = """
    SELECT count(*), coalesce(sum(events), 0), coalesce(sum(length(body)), 0),
           (SELECT count(*) FROM dead_letters),
           (SELECT coalesce(sum(length(entry) + length(CAST(reason AS BLOB))), 0) FROM dead_letters)
    FROM groups
"""


Value: TypeAlias = tuple[bytes, int]
State: TypeAlias = dict[str, Value]
"""Groups by their number and dead letters by their name: the bytes of each, and how often its delivery was tried."""


class Violation(AssertionError):
    """The spool broke its word."""


class Change(NamedTuple):
    """A transaction and the keys that it changes, to None if they go; it fails by itself if there are none."""

    transaction: Transaction
    after: dict[str, Value | None]

    def apply(self, state: State) -> State:
        merged = {**state, **self.after}
        return {key: value for key, value in merged.items() if value is not None}


class Author:
    """Makes changes of which each can be judged for itself, whatever became of the others."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._last_id = 0
        self._events = [self._make_event() for _ in range(EVENTS_MAX)]

    def write(self, state: State, most: int) -> list[Change]:
        """Make some changes to a state that touch different keys of it."""
        groups = [key for key in state if key.isdigit()]
        self._chance.shuffle(groups)
        return [self._write_one(state, groups) for _ in range(self._chance.randint(1, most))]

    def _write_one(self, state: State, groups: list[str]) -> Change:
        change = Change(Transaction(), {})
        for _ in range(self._chance.choice([1, 1, 1, 2])):
            self._insert(change)
        for alter in (self._delete, self._delete, self._bury, self._shrink, self._try):
            if groups and self._chance.random() < 0.3:
                alter(change, groups.pop(), state)
        if self._chance.random() < 0.12:
            # This number is taken, by now at the latest.
            taken = NewGroup(int(groups[-1]) if groups else change.transaction.inserts[0].id, self._draw_events())
            change.transaction.inserts.append(taken)
            change.after.clear()
        return change

    def _insert(self, change: Change) -> None:
        self._last_id += 1
        entries = self._draw_events()
        change.transaction.inserts.append(NewGroup(self._last_id, entries))
        change.after[str(self._last_id)] = (join_entries(entries), 0)

    def _delete(self, change: Change, key: str, _state: State) -> None:
        change.transaction.deletes.append(int(key))
        change.after[key] = None

    def _bury(self, change: Change, key: str, state: State) -> None:
        self._delete(change, key, state)
        entry = make_entry(f"dead-{key}", self._chance.randrange(100, 9000))
        change.transaction.dead.append(DeadLetter(entry, "type", "reason", History(1), 1))
        change.after[f"dead-{key}"] = (entry, 1)

    def _shrink(self, change: Change, key: str, state: State) -> None:
        entries = self._draw_events()
        attempts = state[key][1] + 1
        change.transaction.shrinks.append((int(key), entries, History(attempts)))
        change.after[key] = (join_entries(entries), attempts)

    def _try(self, change: Change, key: str, state: State) -> None:
        body, attempts = state[key]
        change.transaction.attempts.append((int(key), History(attempts + 1)))
        change.after[key] = (body, attempts + 1)

    def _draw_events(self) -> list[Entry]:
        first = self._chance.randrange(EVENTS_MAX)
        return self._events[first : first + draw_small(self._chance, EVENTS_MAX)]

    def _make_event(self) -> Entry:
        return b"{}\n%b\n" % self._chance.randbytes(self._chance.randrange(20, 150)).hex().encode()


class SpoolHistory:
    """The lives of one spool, each in a folder of its own that begins with the files that the one before it left.

    Attributes:
        counts: how often things happened, so that a test can see that they do.
    """

    def __init__(self, seed: int, folder: Path, files: FaultyFiles, counts: collections.Counter[str]) -> None:
        self.counts = counts
        self._chance = random.Random(seed)
        self._author = Author(self._chance)
        self._folder = folder
        self._files = files
        self._picture = Picture(Disk(), {})
        self._power_lost = False
        # The groups that are there for certain, changes that may be there too, and the groups that this life has seen.
        self._certain: State = {}
        self._uncertain: list[Change] = []
        self._seen: State = {}
        self._in_doubt = False

    def run(self) -> None:
        for number in range(self._chance.randint(2, LIVES_MAX)):
            folder = self._folder / str(number)
            folder.mkdir()
            self._picture.write(folder)
            disk = FaultyDisk(folder, self._picture.disk, self._chance)
            self._files.policy = disk
            with self._settings():
                self._live(folder / NAME, disk)
            self._lose_power_perhaps(disk.end())
            self.counts["lives"] += 1
            self.counts["steps"] += disk.step
            self.counts["faults"] += disk.faults
            shutil.rmtree(folder)

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        pages = self._chance.choice([4000, 4, draw_small(self._chance, 60)])
        kept_bytes = self._chance.choice([2**26, 30_000])
        with (
            mock.patch("forebay.spool.database.WAL_PAGES_BEFORE_CHECKPOINT", pages),
            mock.patch("forebay.spool.database.WAL_BYTES_KEPT", kept_bytes),
        ):
            yield

    def _live(self, path: Path, disk: FaultyDisk) -> None:
        self._in_doubt = False
        if self._chance.random() < 0.15:
            disk.ends_at = self._chance.randint(1, OPENING_STEPS)
        if self._chance.random() < 0.1:
            disk.trouble(self._chance.randrange(OPENING_STEPS))
        try:
            spool = Spool(path)
        except SpoolUnusable as error:
            if disk.picture is None and not disk.faults:
                raise Violation(f"opening failed: {error}") from error
            self.counts["openings that failed"] += 1
            return
        answers = Answers(disk)
        spool.start(cast("Any", answers))
        with contextlib.closing(spool):
            if disk.picture is None:
                self._check(path, spool, answers)
                self._work(spool, disk, answers)
            if self._chance.random() < 0.5:
                disk.end()
        disk.end()

    def _work(self, spool: Spool, disk: FaultyDisk, answers: Answers) -> None:
        if self._chance.random() < 0.3:
            # So small that pages of a transaction go to the log before it is committed.
            pragma = f"PRAGMA cache_size = {self._chance.randint(1, 10)}"
            spool.submit(lambda store: store.connection.execute(pragma).fetchone(), answers.take)
            answers.get()
        if self._chance.random() < 0.6:
            disk.ends_at = disk.step + draw_small(self._chance, LIFE_STEPS)
        for _ in range(self._chance.choice([0, 0, 1, 1, 1, 2, 3])):
            disk.trouble(draw_small(self._chance, LIFE_STEPS))
        for _ in range(self._chance.randint(1, BATCHES_MAX)):
            if disk.picture is not None:
                break
            self._commit(spool, disk, answers)
            if self._chance.random() < 0.1:
                self._vacuum(spool, disk, answers)

    def _vacuum(self, spool: Spool, disk: FaultyDisk, answers: Answers) -> None:
        """Let the file become shorter, which changes nothing that is in it."""
        spool.submit(Store.vacuum, answers.take)
        result, was_heard = answers.get()
        self._in_doubt |= was_heard and isinstance(result, SpoolInDoubt)
        if was_heard and not isinstance(result, bool) and not disk.faults:
            raise Violation(f"the file could not be made shorter on a disk that works: {result}")

    def _commit(self, spool: Spool, disk: FaultyDisk, answers: Answers) -> None:
        """Ask for some commits at once and judge the answers."""
        changes = self._author.write(self._seen, self._chance.choice([1, 1, 3]))
        for change in changes:
            spool.commit(change.transaction, answers.take)
        for change in changes:
            result, was_heard = answers.get()
            if was_heard:
                self._judge(change, result, disk)
                if self._in_doubt and not spool.lost:
                    raise Violation("a spool in doubt goes on")
            elif change.after:
                self.counts["commits cut off"] += 1
                self._uncertain.append(change)

    def _judge(self, change: Change, result: object, disk: FaultyDisk) -> None:
        if self._in_doubt and not isinstance(result, SpoolLost):
            raise Violation(f"in doubt the answer was {result!r}")
        if isinstance(result, dict):
            if not change.after:
                raise Violation("success was answered to a transaction that must fail")
            self.counts["commits"] += 1
            self._seen = self._certain = change.apply(self._seen)
            # A commit is made of all that was there before it.
            self._uncertain = []
        elif isinstance(result, SpoolInDoubt):
            self.counts["commits in doubt"] += 1
            self._in_doubt = True
            if change.after:
                self._uncertain.append(change)
        elif isinstance(result, SpoolUnavailable):
            self.counts["commits refused"] += 1
            if change.after and not disk.faults:
                raise Violation(f"a commit was refused on a disk that works: {result}")
        else:
            raise Violation(f"the answer was {result!r}")

    def _lose_power_perhaps(self, picture: Picture) -> None:
        self._power_lost = self._chance.random() < 0.5
        if self._power_lost:
            self.counts["losses of power"] += 1
            picture.disk.lose_power(Luck.draw(self._chance))
        self._picture = picture

    def _check(self, path: Path, spool: Spool, answers: Answers) -> None:
        """Check that the content of a spool that was just opened is allowed."""
        spool.submit(lambda store: store.connection, answers.take)
        connection: Any
        connection, _ = answers.get()
        if called := [file.name for file in path.parent.iterdir() if ".damaged" in file.name or ".moved-" in file.name]:
            raise Violation(f"a sound spool was called damaged: {called}")
        if incidents := connection.execute("SELECT detail FROM incidents WHERE kind = 'damaged'").fetchall():
            raise Violation(f"a sound spool was called damaged: {incidents}")
        if (result := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            raise Violation(f"the file is not sound: {result}")
        totals = connection.execute(TOTALS).fetchone()
        if not totals == tuple(spool.totals) == connection.execute(COUNTED).fetchone():
            raise Violation(f"the totals are wrong: {totals}")
        self._seen = read_state(connection)
        self._uncertain = self._find_applied()
        if self._power_lost:
            self._certain, self._uncertain = self._seen, []

    def _find_applied(self) -> list[Change]:
        """Return which of the uncertain changes are there, each whole or not at all."""
        for chosen in itertools.product((True, False), repeat=len(self._uncertain)):
            applied = list(itertools.compress(self._uncertain, chosen))
            state = self._certain
            for change in applied:
                state = change.apply(state)
            if state == self._seen:
                return applied
        raise Violation(describe(self._certain, self._uncertain, self._seen))


class Answers:
    """Stands in the place of the event loop, and hears the spool's answers in the moment in which it gives them."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk
        self._answers: queue.SimpleQueue[tuple[object, bool]] = queue.SimpleQueue()

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: object) -> None:
        callback(*arguments)

    def take(self, result: object) -> None:
        self._answers.put((result, self._disk.picture is None))

    def get(self) -> tuple[object, bool]:
        """Return an answer, and whether it was given before the life ended."""
        return self._answers.get(timeout=PATIENCE_S)


def draw_small(chance: random.Random, most: int) -> int:
    """Return a number from 1 to `most`; small ones are as likely as large ones."""
    return int(most ** chance.random())


def read_state(connection: Any) -> State:
    codec = GroupCodec()
    rows = connection.execute("SELECT id, codec, body, attempts FROM groups")
    state = {str(group_id): (codec.unpack(kept_as, body), attempts) for group_id, kept_as, body, attempts in rows}
    letters = connection.execute("SELECT log_id, entry, attempts FROM dead_letters")
    return state | {log_id: (entry, attempts) for log_id, entry, attempts in letters}


def describe(certain: State, uncertain: list[Change], seen: State) -> str:
    """Return a description of the contradiction."""
    missing = sorted(key for key in certain if key not in seen)
    extra = sorted(key for key in seen if key not in certain)
    different = sorted(key for key in seen if key in certain and certain[key] != seen[key])
    doubts = [sorted(change.after) for change in uncertain]
    return f"not there: {missing}; there: {extra}; different: {different}; each of these whole or not: {doubts}"
