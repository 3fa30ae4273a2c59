"""A row is in memory or pending, however that changes while it is read."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from forebay.history import History
from forebay.pipeline.ledger import Ledger
from forebay.spool.records import NewGroup, StoredGroup, Transaction
from forebay.spool.spool import Spool
from unit.pipeline.fakes import PLENTY, commit, make_entries, make_entry, make_group, read_rows

NOVEMBER = "events_test_2026-11"


async def test_a_group_that_is_taken_up_is_as_its_row_was_and_goes_alone(spool: Spool) -> None:
    ledger = Ledger(spool)
    ledger.store(2, 77)
    sent = make_entries(2)
    original = {sent[0]: make_entry("original")}

    group = ledger.take_up(StoredGroup(3, NOVEMBER, sent, History(4, (1, 2), 1), 77, 5, original))

    assert (group.row_id, group.index, group.history, group.is_alone) == (3, NOVEMBER, History(4, (1, 2), 1), True)
    assert (group.stored_bytes, group.received_at_ms) == (77, 5)
    assert [group.original(entry) for entry in group.entries] == [make_entry("original"), sent[1]]
    assert ledger.loaded == {3: group}
    assert (ledger.stored_events, ledger.pending_events) == (2, 0)


async def test_a_row_that_entered_memory_while_it_was_read_is_left_out_though_it_is_settled_by_then(
    spool: Spool, path: Path
) -> None:
    # The answers come in the order of the questions: a commit, a load that sees its row, and the row's deletion.
    ledger = Ledger(spool)
    group = make_group(make_entries(1), 1)
    spool.commit(Transaction(inserts=[NewGroup(1, group.entries)]), lambda _: ledger.add(group))
    loading = asyncio.create_task(ledger.load(0, PLENTY))
    await asyncio.sleep(0)
    spool.commit(Transaction(deletes=[1]), lambda _: ledger.release([group]))
    spool.commit(Transaction(inserts=[NewGroup(2, make_entries(1, "last"))]), lambda _: None)
    # The loop stands still until the thread has done all of it, so that it hears all answers at once.
    give_up_at = time.monotonic() + 10
    while not read_rows(path, "SELECT 1 FROM groups WHERE id = 2"):
        assert time.monotonic() < give_up_at

    assert await loading == []


async def test_of_two_who_read_the_same_groups_at_the_same_time_one_gets_them(spool: Spool) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(number, make_entries(2)) for number in (1, 2, 3)]))
    ledger = Ledger(spool)

    async def take() -> int:
        groups = await ledger.load(0, PLENTY)
        for stored in groups:
            ledger.take_up(stored)
        return len(groups)

    taking = [asyncio.create_task(take()) for _ in range(2)]
    assert sorted(await asyncio.gather(*taking)) == [0, 3]


async def test_a_row_that_is_loaded_or_not_there_is_not_loaded_again(spool: Spool) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(number, make_entries(2)) for number in (1, 3)]))
    ledger = Ledger(spool)
    stored = await ledger.load_row(3)
    assert stored is not None
    ledger.take_up(stored)

    assert await ledger.load_row(3) is None
    assert await ledger.load_row(2) is None


async def test_rows_that_are_set_apart_are_left_out_of_passes_alone(spool: Spool) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(number, make_entries(2)) for number in (1, 2)]))
    ledger = Ledger(spool)
    ledger.set_apart.add(1)

    assert [stored.id for stored in await ledger.load(0, PLENTY, with_set_apart=False)] == [2]
    assert [stored.id for stored in await ledger.load(0, PLENTY)] == [1, 2]
