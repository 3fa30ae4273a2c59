"""Pending events come back oldest first, only as many as there is room for, and none of them in a tight circle."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import GroupDamaged, SpoolUnavailable
from forebay.model import DELIVERED, Admission, DeadLetter, Entry, History, Outcome, entry_index
from forebay.pipeline import redelivery as redelivery_module
from forebay.pipeline import requests, wake
from forebay.pipeline.channel import Channel
from forebay.pipeline.group import UNTRIED, Bulk, GroupLimits, Settlement
from forebay.pipeline.ledger import Hear
from forebay.pipeline.settlement import settle
from forebay.spool import loading
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.beside.requests import Burial, Request
from forebay.spool.loading import Wanted
from forebay.spool.records import NewGroup, StoredGroup, Totals, Transaction
from unit.pipeline.fakes import (
    PAUSE,
    RETRY,
    Inbox,
    Parts,
    assert_ledger_is_true,
    capture_log,
    commit,
    make_channel,
    make_entries,
    make_entry,
    make_group,
    open_spool,
    read_rows,
    settle_down,
    until,
)

LIMITS = GroupLimits(events_max=10, bytes_max=1000)
HOUR_S = 3600.0


@dataclass
class FakeStore:
    """A `Store` of groups that stay until they are removed, and that writes down what was asked of it."""

    groups: dict[int, StoredGroup] = field(default_factory=dict)
    requests: frozenset[str] = frozenset()
    replays: list[list[Entry]] = field(default_factory=list)
    loads: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    during_load: Callable[[], None] = lambda: None
    last_group_id: int = 100
    refusal: str = ""
    dead_bytes: int = 0

    def add(self, row_id: int, entries: list[Entry], history: History = UNTRIED) -> None:
        index = entry_index(entries[0])
        self.groups[row_id] = StoredGroup(row_id, index, entries, history, sum(map(len, entries)), 0)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    @property
    def totals(self) -> Totals:
        events = sum(len(group.entries) for group in self.groups.values())
        return Totals(len(self.groups), events, sum(group.stored_bytes for group in self.groups.values()), 0, 0)

    async def load(
        self, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], wanted: Wanted, hear: Hear
    ) -> list[StoredGroup]:
        self.loads.append((after_id, room))
        await asyncio.sleep(0)
        self._fail()
        left = room[0]
        found: list[StoredGroup] = []
        for row_id, group in sorted(self.groups.items()):
            is_going = wanted.includes(group.index_name, group.history.refused_status)
            if row_id > after_id and row_id not in left_out and is_going:
                left -= len(group.entries)
                if found and left < 0:
                    break
                found.append(group)
        self.during_load()
        return hear(found)

    async def load_trial(
        self, index: str, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], hear: Hear
    ) -> list[StoredGroup]:
        raise NotImplementedError

    def commit(self, *_: object, is_awaited: bool = True) -> None:
        """Leave every commit under way."""

    async def list_burials(self) -> list[Burial]:
        await asyncio.sleep(0)
        return []

    async def take_requests(self) -> frozenset[str]:
        await asyncio.sleep(0)
        self._fail()
        taken, self.requests = self.requests, frozenset()
        return taken

    async def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        assert events_max > 0
        await asyncio.sleep(0)
        self._fail()
        if not self.replays:
            return 0, 0
        self.add(group_id, self.replays.pop(0))
        return len(self.groups[group_id].entries), self.groups[group_id].stored_bytes


class Bench(Parts):
    """A redelivery with a journal and a channel of its own."""

    def __init__(self, store: Any, channel: Channel | None = None, interval_s: float = HOUR_S) -> None:
        super().__init__(
            store,
            channel=channel or make_channel(events_max=40, bulk_events_max=10),
            limits=LIMITS,
            interval_s=interval_s,
        )
        self.interval_s = interval_s

    @contextlib.asynccontextmanager
    async def run_all(self) -> AsyncIterator[None]:
        """Let redelivery run, and the requests of commands."""
        async with self.running(self.redelivery.run(self.interval_s), self.requests.run()):
            yield

    def deliver(self, outcome: Outcome = DELIVERED) -> list[Entry]:
        """Take a bulk, with one outcome for all of it."""
        bulk = self.channel.take()
        for settlement in settle(bulk, [outcome] * len(bulk.entries), 1000, self.journal.new_id, self.evidence):
            self.journal.settle(settlement)
        return bulk.entries

    async def deliver_all(self) -> list[Entry]:
        """Deliver what is in the channel and what follows, until nothing is held any more."""
        entries: list[Entry] = []
        while self.ledger.stored_events or self.channel.events:
            await until(lambda: self.channel.events)
            entries += self.deliver()
            await self.journal.wait_written()
        return entries


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "POLL_S", 0.01)
    monkeypatch.setattr(wake, "SOON_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


async def fill(path: Path, groups: int, events: int = 10) -> list[Entry]:
    """Make a spool of that many groups, and leave it; return all entries in their order."""
    entries = make_entries(groups * events)
    async with open_spool(path) as spool:
        rows = [NewGroup(row_id, entries[(row_id - 1) * events : row_id * events]) for row_id in range(1, groups + 1)]
        await commit(spool, Transaction(inserts=rows))
    return entries


async def test_what_was_left_comes_back_oldest_first(path: Path) -> None:
    entries = await fill(path, groups=12)
    async with open_spool(path) as spool:
        bench = Bench(spool)
        async with bench.run_all():
            await until(lambda: bench.ledger.stored_events)

            assert await asyncio.wait_for(bench.deliver_all(), 5) == entries

        assert bench.counters.redelivered == len(entries)
        assert read_rows(path, "SELECT * FROM groups") == []
        assert_ledger_is_true(bench.ledger, path)


async def test_only_what_there_is_room_for_is_loaded() -> None:
    store = FakeStore()
    for row_id in range(1, 50):
        store.add(row_id, make_entries(10, f"{row_id}-"))
    bench = Bench(store, make_channel(events_max=35, bulk_events_max=10))
    async with bench.run_all():
        await until(lambda: bench.channel.events == 30)
        await settle_down()

        assert bench.channel.events == 30
        assert bench.ledger.loaded.keys() == {1, 2, 3}
        assert bench.ledger.pending_events == 460
        assert all(10 <= events <= 35 for _, (events, _) in store.loads), "nothing is read without room for a whole row"

        bench.deliver()
        await until(lambda: bench.channel.events == 30)
        assert bench.ledger.loaded.keys() == {1, 2, 3, 4}


async def test_no_more_than_a_few_bulks_are_loaded_at_once() -> None:
    store = FakeStore()
    for row_id in range(1, 50):
        store.add(row_id, make_entries(10, f"{row_id}-"))
    bench = Bench(store, make_channel(events_max=10_000, bulk_events_max=10))
    async with bench.run_all():
        await until(lambda: bench.ledger.pending_events == 0 and bench.channel.events)

    assert max(events for _, (events, _) in store.loads) <= 10 * redelivery_module.LOAD_BULKS_MAX
    assert max(entry_bytes for _, (_, entry_bytes) in store.loads) <= LIMITS.bytes_max


async def test_an_event_larger_than_the_channel_comes_back_once_the_channel_is_empty() -> None:
    store = FakeStore()
    store.add(1, [make_entry("giant", 5000)])
    bench = Bench(store, make_channel(bytes_max=2000, bulk_events_max=10))
    bench.channel.add(make_entries(1, "before", 500), 500)
    async with bench.run_all():
        await until(lambda: len(store.loads) == 1)
        await settle_down()
        assert bench.channel.events == 1

        bench.deliver()
        await until(lambda: bench.channel.events == 1)
        assert bench.deliver() == [make_entry("giant", 5000)]


async def test_a_group_in_memory_is_not_loaded_a_second_time(path: Path) -> None:
    entries = await fill(path, groups=3)
    async with open_spool(path) as spool:
        bench = Bench(spool)
        async with bench.run_all():
            await until(lambda: bench.channel.events == 30)
            for _ in range(5):
                bench.wake.pass_now()
                await asyncio.sleep(0.01)

            assert bench.channel.events == 30
            assert await asyncio.wait_for(bench.deliver_all(), 5) == entries


async def test_a_group_that_is_settled_while_the_answer_is_on_its_way_does_not_come_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, have_read, go_on, finished = (threading.Event() for _ in range(4))
    load = loading.load

    def read_slowly(*arguments: Any) -> list[StoredGroup]:
        groups = load(*arguments)
        have_read.set()
        assert go_on.wait(5)
        return groups

    monkeypatch.setattr(loading, "load", read_slowly)
    async with open_spool(path) as spool:
        bench = Bench(spool)
        async with bench.run_all():
            await until(lambda: bench.wake.heard)
            inbox = Inbox(make_entries(10))
            spool.submit(lambda _: begin.wait(5))
            bench.journal.submit(inbox)
            await settle_down()
            bench.ledger.store(1, 0)  # as if something were pending, so that a pass looks for it
            bench.wake.pass_now()
            await settle_down()

            # The thread commits the group and reads it, before the loop hears of the commit.
            begin.set()
            assert have_read.wait(5)
            # Before the loop hears of what was read, the group is delivered and its deletion is asked for.
            await until(lambda: inbox.heard)
            bench.deliver()
            await settle_down()
            spool.submit(lambda _: finished.set())
            # The loop hears of both together.
            go_on.set()
            assert finished.wait(5)
            await bench.journal.wait_written()
            await settle_down()

            assert read_rows(path, "SELECT * FROM groups") == []
            assert bench.ledger.loaded == {}
            assert bench.channel.events == bench.counters.redelivered == 0


async def test_what_failed_again_waits_for_the_next_pass() -> None:
    store = FakeStore()
    store.add(1, make_entries(10, "a"))
    store.add(2, make_entries(10, "b"))
    bench = Bench(store)
    async with bench.run_all():
        await until(lambda: bench.channel.events == 20)
        bench.deliver(RETRY)
        leave_in_row(bench, 1)
        loads = len(store.loads)
        bench.wake.go_on()
        await until(lambda: len(store.loads) > loads)
        await settle_down()
        assert bench.channel.events == 10, "it lies behind the point that the pass has come to"

        bench.wake.pass_now()
        await until(lambda: bench.channel.events == 20)


def leave_in_row(bench: Bench, row_id: int) -> None:
    """Do the part of a commit that has succeeded: a group of which nothing was settled is pending again."""
    group = bench.ledger.loaded[row_id]
    assert len(group.kept) == len(group.entries)
    bench.ledger.settle([Settlement(Transaction(), [group])], {})


async def test_a_pass_begins_at_every_interval() -> None:
    store = FakeStore()
    store.add(1, make_entries(10))
    bench = Bench(store, interval_s=0.02)
    async with bench.run_all():
        for attempt in range(1, 4):
            await until(lambda: bench.channel.events == 10)
            assert bench.counters.redelivered == attempt * 10
            bench.deliver(RETRY)
            leave_in_row(bench, 1)


async def test_what_overflowed_is_found_by_going_on() -> None:
    store = FakeStore()
    bench = Bench(store)
    async with bench.run_all():
        await settle_down()
        store.add(1, make_entries(10))
        bench.ledger.store(10, 500)
        bench.wake.go_on()

        await until(lambda: bench.channel.events == 10)


async def test_nothing_is_loaded_while_nothing_is_pending() -> None:
    store = FakeStore()
    bench = Bench(store, interval_s=0.001)
    async with bench.run_all():
        await asyncio.sleep(0.02)

    assert store.loads == []


async def test_nothing_is_loaded_while_settlements_cannot_be_written() -> None:
    store = FakeStore()
    store.add(1, make_entries(10))
    bench = Bench(store)
    bench.journal._settling.clear()
    async with bench.run_all():
        await until(lambda: bench.ledger.pending_events)
        await settle_down()
        assert store.loads == []

        bench.journal._settling.set()
        await until(lambda: bench.channel.events == 10)


@pytest.mark.parametrize("after_id", [4, 0])
async def test_a_new_pass_that_begins_during_a_load_starts_from_the_oldest(after_id: int) -> None:
    store = FakeStore()
    store.add(5, make_entries(10, "new"))
    bench = Bench(store)
    bench.redelivery._after_id = after_id
    store.add(2, make_entries(10, "old"))
    bench.ledger.store(20, 1000)
    store.during_load = bench.wake.pass_now

    assert await bench.redelivery._load_some()

    assert bench.channel.events == 0, "what was read belongs to the pass before"
    store.during_load = lambda: None
    await bench.redelivery._load_some()
    assert bench.deliver()[:10] == make_entries(10, "old")


async def test_a_damaged_group_holds_up_nothing_behind_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = capture_log(monkeypatch, redelivery_module)
    entries = await fill(path, groups=4)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE groups SET codec = 0, body = ? WHERE id = 2", (b"no entry",))
        connection.commit()
    async with open_spool(path) as spool:
        bench = Bench(spool)
        async with bench.run_all():
            await until(lambda: bench.channel.events == 30)
            assert [bench.deliver() for _ in range(3)] == [entries[:10], entries[20:30], entries[30:]]
            await bench.journal.wait_written()

        assert read_rows(path, "SELECT id FROM groups") == [(2,)]
        assert bench.ledger.pending_events == 10
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["group_damaged"]
    assert any("group 2" in str(line.get("cause")) for line in lines)


async def test_a_damaged_group_of_a_pass_before_does_not_move_a_new_pass_on() -> None:
    store = FakeStore(failures=[GroupDamaged(9, "no entry")])
    store.add(2, make_entries(10))
    bench = Bench(store)
    bench.redelivery._after_id = 4
    loading = asyncio.create_task(bench.redelivery._load_some())
    await asyncio.sleep(0)
    bench.wake.pass_now()

    assert await loading
    assert await bench.redelivery._load_some()
    assert bench.deliver() == make_entries(10)


@pytest.mark.parametrize("failing", ["load", "requests"])
async def test_a_spool_that_cannot_be_read_for_a_while_ends_nothing(failing: str) -> None:
    store = FakeStore()
    store.add(1, make_entries(10))
    bench = Bench(store, interval_s=0.02)
    async with bench.run_all():
        await until(lambda: bench.channel.events)
        bench.deliver(RETRY)
        store.failures = [SpoolUnavailable("locked")] * (1 if failing == "load" else 2)
        leave_in_row(bench, 1)
        await until(lambda: bench.channel.events == 10)
    assert store.failures == []


async def _deliver_one(bench: Bench) -> list[Entry]:
    await until(lambda: bench.channel.events)
    return bench.deliver()


async def test_a_request_to_retry_begins_a_pass(path: Path) -> None:
    entries = await fill(path, groups=1)
    async with open_spool(path) as spool:
        bench = Bench(spool)
        async with bench.run_all():
            await until(lambda: bench.channel.events)
            bench.deliver(RETRY)
            await bench.journal.wait_written()
            assert bench.ledger.pending_events == 10

            with inspect(path) as inspection:
                inspection.ask(Request.RETRY)

            await until(lambda: bench.channel.events)
            assert bench.deliver() == entries


async def test_a_replayed_dead_letter_comes_back(path: Path) -> None:
    letters = [DeadLetter(entry, "type", "reason", History(1), 1000) for entry in make_entries(25)]
    async with open_spool(path) as spool:
        await commit(spool, Transaction(dead=letters))
        bench = Bench(spool)
        async with bench.run_all():
            await settle_down()
            with inspect(path) as inspection:
                assert inspection.request_replay(Choice()) == 25
                inspection.ask(Request.REPLAY)

            delivered = await asyncio.wait_for(_deliver_count(bench, 25), 5)
            await bench.journal.wait_written()

        assert sorted(delivered) == sorted(make_entries(25))
        assert read_rows(path, "SELECT * FROM dead_letters") == read_rows(path, "SELECT * FROM groups") == []
        assert_ledger_is_true(bench.ledger, path)


async def _deliver_count(bench: Bench, events: int) -> list[Entry]:
    delivered: list[Entry] = []
    while len(delivered) < events:
        await until(lambda: bench.channel.events)
        delivered += bench.deliver()
    return delivered


async def test_a_replay_that_fails_is_not_forgotten() -> None:
    store = FakeStore()
    bench = Bench(store)
    async with bench.run_all():
        await settle_down()
        store.replays = [make_entries(3)]
        original = store.replay
        failures = [SpoolUnavailable("disk full")]

        async def replay(group_id: int, events_max: int) -> tuple[int, int]:
            if failures:
                raise failures.pop()
            return await original(group_id, events_max)

        store.replay = replay  # type: ignore[method-assign]
        store.requests = frozenset({"replay"})

        await until(lambda: bench.channel.events == 3)
    assert failures == []


async def test_a_replay_that_was_begun_before_the_end_is_finished_at_the_start(path: Path) -> None:
    async with open_spool(path) as spool:
        await commit(spool, Transaction(dead=[DeadLetter(make_entry("dead"), "type", "reason", History(1), 1000)]))
        with inspect(path) as inspection:
            inspection.request_replay(Choice())
        # Nobody asks: whoever took the request died.
        bench = Bench(spool)
        async with bench.run_all():
            assert await asyncio.wait_for(_deliver_one(bench), 5) == [make_entry("dead")]


async def test_submissions_and_redelivery_do_not_get_in_each_others_way(path: Path) -> None:
    """A small channel that overflows again and again: everything goes through it once."""
    old = await fill(path, groups=10)
    async with open_spool(path) as spool:
        bench = Bench(spool, make_channel(events_max=25, bulk_events_max=10), interval_s=0.05)
        inboxes = [Inbox(make_entries(7, f"new{number}-")) for number in range(30)]
        delivered: list[Entry] = []
        async with bench.run_all():
            for inbox in inboxes:
                bench.journal.submit(inbox)
                await asyncio.sleep(0)
                delivered += bench.deliver()
            await until(lambda: all(inbox.heard for inbox in inboxes))
            delivered += await asyncio.wait_for(bench.deliver_all(), 5)

        assert sorted(delivered) == sorted([*old, *(entry for inbox in inboxes for entry in inbox.entries)])
        assert [Admission.PENDING] in [inbox.heard for inbox in inboxes]
        assert_ledger_is_true(bench.ledger, path)


async def test_a_group_fits_when_the_channel_is_empty_whatever_its_limit() -> None:
    store = FakeStore()
    store.add(1, make_entries(10))
    bench = Bench(store, make_channel(events_max=3, bulk_events_max=10))
    async with bench.run_all():
        await until(lambda: bench.channel.events == 10)
        assert not bench.channel.offer(make_group(make_entries(1)))


def put_on_hold(bench: Bench) -> None:
    entries = make_entries(1, month="2026-12")
    bench.holds.learn(Bulk(entries, [(make_group(entries), entries)]), [PAUSE], 0)


def take_up(bench: Bench, stored: StoredGroup) -> None:
    if stored.id not in bench.ledger.loaded:
        bench.ledger.take_up(stored)


async def test_groups_of_an_index_on_hold_are_not_read(path: Path) -> None:
    async with open_spool(path) as spool:
        rows = [NewGroup(row_id, make_entries(10, f"d{row_id}-", month="2026-12")) for row_id in range(1, 6)]
        await commit(spool, Transaction(inserts=[*rows, NewGroup(6, make_entries(10, "n"))]))
    async with open_spool(path) as spool:
        bench = Bench(spool)
        put_on_hold(bench)
        async with bench.run_all():
            await until(lambda: bench.channel.events)
            await settle_down()
            assert bench.deliver() == make_entries(10, "n")
            await bench.journal.wait_written()
            assert (bench.channel.events, bench.ledger.pending_events) == (0, 50)


async def test_groups_of_an_index_that_is_put_on_hold_while_they_are_read_stay_where_they_are() -> None:
    store = FakeStore()
    store.add(1, make_entries(10, "d", month="2026-12"))
    store.add(2, make_entries(10, "n"))
    bench = Bench(store)
    store.during_load = lambda: put_on_hold(bench)

    assert await bench.redelivery._load_some()

    assert bench.channel.take().entries == make_entries(10, "n")
    assert bench.ledger.loaded.keys() == {2}


async def test_a_group_that_was_taken_up_while_it_was_read_does_not_come_twice() -> None:
    store = FakeStore()
    store.add(1, make_entries(10, "a"))
    store.add(2, make_entries(10, "b"))
    bench = Bench(store)
    store.during_load = lambda: take_up(bench, store.groups[1])

    assert await bench.redelivery._load_some()

    assert bench.channel.take().entries == make_entries(10, "b")
    assert bench.ledger.pending_events == 0


@pytest.mark.parametrize(("status", "is_its_turn"), [(0, True), (400, True), (413, True), (422, True), (403, False)])
async def test_what_was_refused_with_a_status_that_may_pass_is_not_tried_again_shortly(
    status: int, *, is_its_turn: bool
) -> None:
    store = FakeStore()
    store.add(1, make_entries(10), History(1, (1,), refused_status=status))
    bench = Bench(store)
    async with bench.run_all():
        await until(lambda: bench.channel.events == 10)
        assert bench.evidence.rounds == 1
        bench.deliver(RETRY)
        leave_in_row(bench, 1)
        await settle_down()
        loads = len(store.loads)

        bench.wake.pass_soon()
        await until(lambda: len(store.loads) > loads)
        await settle_down()

        assert bench.channel.events == (10 if is_its_turn else 0)


async def test_each_interval_is_a_round_in_which_everything_goes() -> None:
    store = FakeStore()
    store.add(1, make_entries(10), History(1, (1,), refused_status=403))
    bench = Bench(store, interval_s=0.02)
    async with bench.run_all():
        for attempt in range(1, 4):
            await until(lambda: bench.channel.events == 10)
            assert bench.evidence.rounds >= attempt
            bench.deliver(RETRY)
            leave_in_row(bench, 1)


async def test_a_round_that_a_spool_interrupts_goes_on_later() -> None:
    store = FakeStore(failures=[SpoolUnavailable("locked")])
    store.add(1, make_entries(10), History(1, (1,), refused_status=403))
    bench = Bench(store)
    async with bench.run_all():
        await until(lambda: not store.failures)
        await settle_down()
        bench.wake.go_on()
        await until(lambda: bench.channel.events == 10)


async def test_a_suspect_does_not_go_with_others() -> None:
    store = FakeStore()
    store.add(1, make_entries(10, "suspect"), History(3, (1,), strikes=3))
    store.add(2, make_entries(10, "usual"))
    bench = Bench(store)

    assert await bench.redelivery._load_some()

    assert bench.channel.take().entries == make_entries(10, "usual")
    assert bench.ledger.set_apart == {1}


async def test_a_suspect_that_was_taken_up_while_it_was_read_does_not_go_twice() -> None:
    store = FakeStore()
    store.add(1, make_entries(1), History(3, (1,), strikes=3))
    bench = Bench(store)
    assert bench.suspects.set_apart(store.groups[1])
    store.during_load = lambda: take_up(bench, store.groups[1])

    assert await asyncio.wait_for(bench.suspects._take_step(1), 5) is None

    assert bench.counters.bulks == 0
    assert bench.ledger.pending_events == 0
