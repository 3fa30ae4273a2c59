"""Pending events come back oldest first, only as many as there is room for, and none of them in a tight circle."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import GroupDamaged, SpoolUnavailable
from forebay.history import History
from forebay.model import Admission, Entry
from forebay.pipeline import journal, requests, wake
from forebay.pipeline import redelivery as redelivery_module
from forebay.pipeline.group import Settlement
from forebay.spool import loading
from forebay.spool.records import NewGroup, StoredGroup, Transaction
from unit.pipeline.fakes import (
    RETRY,
    Inbox,
    assert_ledger_is_true,
    capture_log,
    commit,
    make_channel,
    make_entries,
    make_entry,
    make_group,
    make_parts,
    open_spool,
    put_on_hold,
    read_rows,
    settle_down,
    until,
)
from unit.pipeline.redelivery_bench import LIMITS, Bench, FakeStore, fill, leave_in_row, take_up

DECEMBER = "events_test_2026-12"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "POLL_S", 0.01)
    monkeypatch.setattr(wake, "SOON_S", 0.01)


async def test_pending_events_come_back_oldest_first(path: Path) -> None:
    entries = await fill(path, groups=12)
    async with open_spool(path) as spool:
        bench = Bench(spool)
        async with bench.run_all():
            await until(lambda: bench.ledger.stored_events)

            assert await asyncio.wait_for(bench.deliver_all(), 5) == entries

        assert bench.counters.redelivered == len(entries)
        assert read_rows(path, "SELECT * FROM groups") == []
        assert_ledger_is_true(bench.ledger, path)


async def test_only_as_much_is_loaded_as_there_is_room_for() -> None:
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
    bench.channel.add(make_parts(make_entries(1, "before", 500)))
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
            # Before the loop hears of that read, the group is delivered and its deletion is asked for.
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


async def test_a_group_that_failed_again_waits_for_the_next_pass() -> None:
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


async def test_events_that_overflowed_are_found_by_going_on() -> None:
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


async def test_nothing_is_loaded_while_settlements_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "RETRY_S", 0.01)
    store = FakeStore()
    store.add(1, make_entries(10))
    bench = Bench(store)
    bench.journal.settle(Settlement(Transaction(deletes=[99]), []))
    await until(lambda: store.commits)
    store.commits.pop()(SpoolUnavailable("disk full"))
    async with bench.run_all():
        await until(lambda: store.commits)
        await settle_down()
        assert store.loads == []

        store.commits.pop()({})
        await until(lambda: bench.channel.events == 10)


@pytest.mark.parametrize("after_id", [4, 0])
async def test_a_new_pass_that_begins_during_a_load_starts_from_the_oldest(after_id: int) -> None:
    store = FakeStore()
    if after_id:
        store.add(after_id, make_entries(10, "before"))
    bench = Bench(store)
    async with bench.run_all():
        await pass_over(bench)
        store.add(5, make_entries(10, "new"))
        store.add(2, make_entries(10, "old"))
        bench.ledger.store(20, 1000)
        in_channel = pass_during_load(bench)
        bench.wake.go_on()
        await until(lambda: bench.channel.events == 20)

    assert [after for after, _ in store.loads][:2] == [after_id, 0]
    assert in_channel[:2] == [0, 0], "the groups that were read belong to the pass before"
    assert bench.deliver() == make_entries(10, "old")


async def pass_over(bench: Bench) -> None:
    """Have the first pass go through everything, and take it out of the channel."""
    await until(lambda: bench.wake.passes and not bench.ledger.pending_events)
    await settle_down()
    if bench.channel.events:
        bench.deliver()
    bench.spool.loads.clear()


def pass_during_load(bench: Bench) -> list[int]:
    """Begin a pass during the next load; return the list of the events in the channel at each load."""
    in_channel: list[int] = []

    def look() -> None:
        in_channel.append(bench.channel.events)
        if len(in_channel) == 1:
            bench.wake.pass_now()

    bench.spool.during_load = look
    return in_channel


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
    store = FakeStore()
    store.add(4, make_entries(10, "before"))
    bench = Bench(store)
    async with bench.run_all():
        await pass_over(bench)
        store.failures = [GroupDamaged(9, "no entry")]
        store.add(2, make_entries(10))
        bench.ledger.store(10, 500)
        pass_during_load(bench)
        bench.wake.go_on()
        await until(lambda: bench.channel.events == 10)

    assert [after for after, _ in store.loads][:2] == [4, 0]
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


async def test_groups_of_an_index_on_hold_are_not_read(path: Path) -> None:
    async with open_spool(path) as spool:
        rows = [NewGroup(row_id, make_entries(10, f"d{row_id}-", month="2026-12")) for row_id in range(1, 6)]
        await commit(spool, Transaction(inserts=[*rows, NewGroup(6, make_entries(10, "n"))]))
    async with open_spool(path) as spool:
        bench = Bench(spool)
        put_on_hold(bench.holds, DECEMBER)
        async with bench.run_all():
            await until(lambda: bench.channel.events)
            await settle_down()
            assert bench.deliver() == make_entries(10, "n")
            await bench.journal.wait_written()
            assert (bench.channel.events, bench.ledger.pending_events) == (0, 50)


async def test_groups_of_an_index_that_is_put_on_hold_while_they_are_read_stay_in_the_spool() -> None:
    store = FakeStore()
    store.add(1, make_entries(10, "d", month="2026-12"))
    store.add(2, make_entries(10, "n"))
    bench = Bench(store)
    store.during_load = lambda: put_on_hold(bench.holds, DECEMBER)
    async with bench.run_all():
        await until(lambda: bench.channel.events)
        await settle_down()

    assert bench.channel.take().entries == make_entries(10, "n")
    assert bench.ledger.loaded.keys() == {2}


async def test_a_group_that_was_taken_up_while_it_was_read_does_not_come_twice() -> None:
    store = FakeStore()
    store.add(1, make_entries(10, "a"))
    store.add(2, make_entries(10, "b"))
    bench = Bench(store)
    store.during_load = lambda: take_up(bench, store.groups[1])
    async with bench.run_all():
        await until(lambda: bench.channel.events)
        await settle_down()

    assert bench.channel.take().entries == make_entries(10, "b")
    assert bench.ledger.pending_events == 0


@pytest.mark.parametrize(("status", "is_its_turn"), [(0, True), (400, True), (413, True), (422, True), (403, False)])
async def test_an_event_refused_with_a_status_that_may_pass_is_not_tried_again_shortly(
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
    async with bench.run_all():
        await until(lambda: bench.channel.events)
        await settle_down()

    assert bench.channel.take().entries == make_entries(10, "usual")
    assert bench.ledger.set_apart == {1}
