"""A spool file behaves like a dictionary, in any order of operations."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forebay.errors import SpoolUnavailable
from forebay.history import DeadLetter, History
from forebay.model import Entry, entry_index
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.loading import EVERY
from forebay.spool.records import NewGroup, StoredGroup, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from forebay.spool.upkeep import expiry
from property.memory import make_folder
from unit.pipeline.fakes import PLENTY, commit, make_entry, read_rows, settle_down

T = TypeVar("T")


lines = st.binary(max_size=40).map(lambda text: text.replace(b"\n", b" ")) | st.just(b"repeated " * 300)
entries = st.builds(lambda action, body: b"%b\n%b\n" % (action, body), lines, lines)
bodies = st.lists(entries, min_size=1, max_size=5)
times = st.integers(0, 2**53)
histories = st.builds(History, st.integers(0, 3), st.lists(times, max_size=3).map(tuple), st.integers(0, 9))
log_ids = st.sampled_from("abcdef")


@dataclasses.dataclass
class Row:
    entries: list[Entry]
    history: History


@dataclasses.dataclass
class Letter:
    entry: Entry
    attempts: int
    died_at_ms: int
    requested: bool = False


class SpoolMachine(RuleBasedStateMachine):
    """Does the same to a spool and to two dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = make_folder()
        self.path = Path(self.folder.name) / "spool.db"
        self.loop = asyncio.new_event_loop()
        self.rows: dict[int, Row] = {}
        self.dead: dict[str, Letter] = {}
        self.last_id = 0
        self.clock_ms = 1000
        self.open()

    def open(self) -> None:
        self.spool = Spool(self.path)
        self.spool.start(self.loop)

    def close(self) -> None:
        self.spool.close()
        self.run(settle_down())

    def teardown(self) -> None:
        self.close()
        self.loop.close()
        self.folder.cleanup()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 5))

    def commit(self, transaction: Transaction) -> None:
        stored = self.run(commit(self.spool, transaction))
        assert len(stored) == len(transaction.inserts) + len(transaction.shrinks)

    def new_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def choose(self, data: st.DataObject, most: int = 3) -> list[int]:
        return data.draw(st.lists(st.sampled_from(sorted(self.rows)), min_size=1, max_size=most, unique=True))

    def bury(self, log_id: str, attempts: int) -> DeadLetter:
        self.clock_ms += 1
        before = self.dead.get(log_id)
        entry = make_entry(log_id, 80)
        self.dead[log_id] = Letter(entry, attempts + (before.attempts if before else 0), self.clock_ms)
        return DeadLetter(entry, "type", f"reason of {log_id}", History(attempts), self.clock_ms)

    @rule(groups=st.lists(bodies, min_size=1, max_size=3), history=histories)
    def insert(self, groups: list[list[Entry]], history: History) -> None:
        inserts = [NewGroup(self.new_id(), body, history) for body in groups]
        self.commit(Transaction(inserts=inserts))
        self.rows |= {group.id: Row(list(group.entries), history) for group in inserts}

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        deletes = self.choose(data)
        self.commit(Transaction(deletes=deletes))
        for row_id in deletes:
            del self.rows[row_id]

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def shrink(self, data: st.DataObject) -> None:
        shrinks: list[tuple[int, Sequence[Entry], History]] = []
        for row_id in self.choose(data):
            row = self.rows[row_id]
            row.entries = row.entries[: data.draw(st.integers(1, len(row.entries)))]
            row.history = row.history.tried(data.draw(times), strikes=data.draw(st.integers(0, 1)))
            shrinks.append((row_id, row.entries, row.history))
        self.commit(Transaction(shrinks=shrinks))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def attempt(self, data: st.DataObject) -> None:
        for row_id in (tried := self.choose(data)):
            row = self.rows[row_id]
            row.history = row.history.tried(data.draw(times), strikes=data.draw(st.integers(0, 1)))
        self.commit(Transaction(attempts=[(row_id, self.rows[row_id].history) for row_id in tried]))

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), status=st.sampled_from((400, 403, 413)), is_struck=st.booleans())
    def refuse(self, data: st.DataObject, status: int, *, is_struck: bool) -> None:
        for row_id in (refused := self.choose(data)):
            row = self.rows[row_id]
            row.history = row.history.tried(data.draw(times)).refused(status, is_struck=is_struck)
        self.commit(Transaction(attempts=[(row_id, self.rows[row_id].history) for row_id in refused]))

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), log_id=log_ids, body=bodies)
    def do_everything_at_once(self, data: st.DataObject, log_id: str, body: list[Entry]) -> None:
        (row_id,) = self.choose(data, most=1)
        letter = self.bury(log_id, 1)
        group = NewGroup(self.new_id(), body)
        self.commit(Transaction(inserts=[group], deletes=[row_id], dead=[letter]))
        del self.rows[row_id]
        self.rows[group.id] = Row(body, History())

    @rule(
        buried=st.lists(st.tuples(log_ids, st.integers(1, 9)), min_size=1, max_size=3, unique_by=lambda pair: pair[0])
    )
    def die(self, buried: list[tuple[str, int]]) -> None:
        self.commit(Transaction(dead=[self.bury(log_id, attempts) for log_id, attempts in buried]))

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), body=bodies)
    def fail(self, data: st.DataObject, body: list[Entry]) -> None:
        taken, other = data.draw(st.sampled_from(sorted(self.rows))), data.draw(st.sampled_from(sorted(self.rows)))
        future: asyncio.Future[Any] = self.loop.create_future()
        transaction = Transaction(
            inserts=[NewGroup(self.new_id(), body), NewGroup(taken, body)],
            deletes=[other],
            dead=[DeadLetter(make_entry("a", 90), "type", "never", History(1), 0)],
        )
        self.spool.commit(transaction, future.set_result)
        assert isinstance(self.run(asyncio.wait_for(future, 5)), SpoolUnavailable)

    @rule(log_id=log_ids | st.none())
    def mark(self, log_id: str | None) -> None:
        chosen = [letter for key, letter in self.dead.items() if log_id in (None, key)]
        with inspect(self.path) as inspection:
            assert inspection.request_replay(Choice(() if log_id is None else (log_id,))) == sum(
                not letter.requested for letter in chosen
            )
        for letter in chosen:
            letter.requested = True

    @rule(events_max=st.integers(1, 4))
    def replay(self, events_max: int) -> None:
        row_id = self.new_id()
        events, stored_bytes = self.run(self.spool.replay(row_id, events_max))
        requested = [key for key, letter in self.dead.items() if letter.requested]
        assert events == min(events_max, len(requested))
        assert (stored_bytes > 0) == (events > 0)
        if not events:
            return
        (group,) = self.run(self.spool.load(row_id - 1, frozenset(), PLENTY, EVERY))
        moved = {key for key in requested if self.dead[key].entry in group.entries}
        assert len(moved) == len(group.entries) == events
        self.rows[row_id] = Row(group.entries, History())
        for key in moved:
            del self.dead[key]

    @rule(age_ms=st.integers(0, 10), dead_max=st.integers(1, 3))
    def clean_up(self, age_ms: int, dead_max: int) -> None:
        died_before_ms = self.clock_ms - age_ms
        expired = {
            key for key, letter in self.dead.items() if letter.died_at_ms < died_before_ms and not letter.requested
        }
        letters = self.run(self.spool.call(lambda store: expiry.list_expired(store, died_before_ms, dead_max)))
        self.file_equals_the_dictionaries()  # until then nothing is deleted
        ids = [letter.id for letter in letters]
        gone = self.run(self.spool.call(lambda store: expiry.expire(store, ids, died_before_ms)))
        self.run(self.spool.call(Store.vacuum))
        assert gone == min(dead_max, len(expired))
        left = {log_id for (log_id,) in read_rows(self.path, "SELECT log_id FROM dead_letters")}
        assert self.dead.keys() - left <= expired
        self.dead = {key: letter for key, letter in self.dead.items() if key in left}

    @rule(data=st.data(), room=st.tuples(st.integers(0, 12), st.integers(0, 3000)))
    def load(self, data: st.DataObject, room: tuple[int, int]) -> None:
        after_id = data.draw(st.integers(0, self.last_id))
        held = data.draw(st.sets(st.sampled_from(sorted(self.rows)))) if self.rows else set()
        groups = self.run(self.spool.load(after_id, held, room, EVERY))

        waiting = [row_id for row_id in sorted(self.rows) if row_id > after_id and row_id not in held]
        assert [group.id for group in groups] == waiting[: len(groups)], "oldest first, and none left out"
        assert [group.entries for group in groups] == [self.rows[group.id].entries for group in groups]
        assert bool(groups) == bool(waiting)
        assert len(groups) <= 1 or _size(groups) <= room
        if groups and len(groups) < len(waiting):
            events, entry_bytes = _size([*groups, self.rows[waiting[len(groups)]]])
            assert events > room[0] or entry_bytes > room[1], "there was room for one more"

    @rule(data=st.data(), room=st.tuples(st.integers(0, 12), st.integers(0, 3000)))
    def load_trial(self, data: st.DataObject, room: tuple[int, int]) -> None:
        after_id = data.draw(st.integers(0, self.last_id))
        held = data.draw(st.sets(st.sampled_from(sorted(self.rows)))) if self.rows else set()
        index = data.draw(st.sampled_from(("events_test_2026-11", "")))
        groups = self.run(self.spool.load_trial(index, after_id, held, room))

        mine = {row_id for row_id, row in self.rows.items() if entry_index(row.entries[0]) == index} - held
        fresh = [row_id for row_id in mine if not self.rows[row_id].history.refused_status]
        refused = sorted(row_id for row_id in mine - set(fresh) if row_id > after_id)
        found = [group.id for group in groups]
        assert set(found[: len(fresh)]) <= set(fresh), "events never refused come first"
        assert found[len(fresh) :] == refused[: len(found[len(fresh) :])]
        assert len(set(found)) == len(found)
        assert [group.entries for group in groups] == [self.rows[group.id].entries for group in groups]
        assert bool(groups) == bool(fresh or refused)
        assert len(groups) <= 1 or _size(groups) <= room

    @rule()
    def close_and_reopen(self) -> None:
        self.close()
        self.open()
        assert self.spool.last_group_id == max(self.rows, default=0)
        assert ("log_missing",) not in read_rows(self.path, "SELECT kind FROM incidents")
        assert self.spool.totals[:2] == (len(self.rows), _size(self.rows.values())[0])
        assert self.spool.totals[3:] == (
            len(self.dead),
            sum(len(letter.entry) + len(f"reason of {log_id}") for log_id, letter in self.dead.items()),
        )
        ((stored_bytes,),) = read_rows(self.path, "SELECT coalesce(sum(length(body)), 0) FROM groups")
        assert self.spool.totals.stored_bytes == stored_bytes

    @invariant()
    def file_equals_the_dictionaries(self) -> None:
        loaded = {
            group.id: Row(group.entries, group.history)
            for group in self.run(self.spool.load(0, frozenset(), PLENTY, EVERY))
        }
        assert loaded == self.rows
        statement = "SELECT log_id, entry, attempts, died_at_ms, replay FROM dead_letters"
        rows = {
            log_id: Letter(entry, attempts, died_at_ms, bool(requested))
            for log_id, entry, attempts, died_at_ms, requested in read_rows(self.path, statement)
        }
        assert rows == self.dead
        counted = read_rows(self.path, "SELECT id, events, body_bytes, stored_bytes - length(body) FROM groups")
        assert {row_id: tuple(numbers) for row_id, *numbers in counted} == {
            row_id: (*_size([row]), 0) for row_id, row in self.rows.items()
        }


def _size(rows: Any) -> tuple[int, int]:
    groups: list[Row | StoredGroup] = list(rows)
    return sum(len(row.entries) for row in groups), sum(len(entry) for row in groups for entry in row.entries)


SpoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSpool = SpoolMachine.TestCase
