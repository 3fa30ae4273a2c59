"""Committed groups and dead letters are on disk and come back as they were, and the totals stay true."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from forebay.clock import now_ms
from forebay.errors import SpoolUnavailable
from forebay.history import History
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.loading import EVERY
from forebay.spool.records import NewGroup, Totals, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from forebay.spool.upkeep import expiry
from unit.pipeline.fakes import (
    PLENTY,
    commit,
    load_all,
    make_entries,
    make_entry,
    make_letter,
    open_spool,
    read_rows,
)


async def try_to_commit(spool: Spool, transaction: Transaction) -> Mapping[int, int] | SpoolUnavailable:
    future: asyncio.Future[Mapping[int, int] | SpoolUnavailable] = asyncio.get_running_loop().create_future()
    spool.commit(transaction, future.set_result)
    return await asyncio.wait_for(future, 5)


# -- commits


async def test_entries_come_back_byte_for_byte(spool: Spool) -> None:
    groups = {
        1: [b'{"create":{"_index":"i","_id":"1"}}\n{"text":"plain"}\n'],
        2: ['{"create":{"_index":"i","_id":"Ж"}}\n{"text":"Ünïcödé \\u0000 😀 \r\t"}\n'.encode()],
        3: [b"\x00\xff\xfe\n\x80\x81\r\n", b"\n\n", b" \n \n"],
        4: make_entries(1000, size=300),
        5: [make_entry(f"random{os.urandom(3000).hex()}") for _ in range(20)],
        6: [make_entry("giant", 3_000_000)],
    }

    stored = await commit(spool, Transaction(inserts=[NewGroup(row_id, entries) for row_id, entries in groups.items()]))

    assert await load_all(spool) == groups
    assert len(stored) == 6
    assert stored[3] < 100_000, "repetition is compressed away"


async def test_what_is_committed_is_there_for_the_next_owner(path: Path) -> None:
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(3, make_entries(2), History(4, (1, 2), 3))]))
    async with open_spool(path) as spool:
        (group,) = await spool.load(0, frozenset(), PLENTY, EVERY)

        assert (group.id, group.entries, group.history) == (3, make_entries(2), History(4, (1, 2), 3))
        assert abs(group.received_at_ms - now_ms()) < 60_000
        assert spool.last_group_id == 3


async def test_a_commit_changes_rows_as_it_says(spool: Spool, path: Path) -> None:
    rows = [NewGroup(row_id, make_entries(3, f"{row_id}-")) for row_id in range(1, 5)]
    await commit(spool, Transaction(inserts=rows))

    stored = await commit(
        spool,
        Transaction(
            inserts=[NewGroup(5, make_entries(1, "five", 2000), History(2, (5, 6)))],
            deletes=[1],
            shrinks=[(2, make_entries(3, "2-")[1:2], History(1, (7,), 1))],
            attempts=[(3, History(1, (8,)))],
            dead=[make_letter(make_entry("2-0"))],
        ),
    )

    groups = {group.id: group for group in await spool.load(0, frozenset(), PLENTY, EVERY)}
    assert {row_id: group.entries for row_id, group in groups.items()} == {
        2: make_entries(3, "2-")[1:2],
        3: make_entries(3, "3-"),
        4: make_entries(3, "4-"),
        5: make_entries(1, "five", 2000),
    }
    assert {row_id: group.history for row_id, group in groups.items()} == {
        2: History(1, (7,), 1),
        3: History(1, (8,)),
        4: History(),
        5: History(2, (5, 6)),
    }
    assert stored == {row_id: groups[row_id].stored_bytes for row_id in (5, 2)}
    counted = read_rows(path, "SELECT events, body_bytes, stored_bytes, length(body) FROM groups ORDER BY id")
    assert [(events, body_bytes) for events, body_bytes, *_ in counted] == [
        (len(group.entries), sum(map(len, group.entries))) for group in groups.values()
    ]
    assert all(stored_bytes == length for *_, stored_bytes, length in counted)
    assert read_rows(path, "SELECT log_id, entry FROM dead_letters") == [("2-0", make_entry("2-0"))]


async def test_a_commit_that_fails_stores_nothing_of_it(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1, "a")), NewGroup(2, make_entries(1, "b"))]))

    result = await try_to_commit(
        spool,
        Transaction(
            deletes=[1],
            inserts=[NewGroup(3, make_entries(1, "c")), NewGroup(2, make_entries(1, "taken"))],
            dead=[make_letter(make_entry("dead"))],
        ),
    )

    assert isinstance(result, SpoolUnavailable)
    assert "UNIQUE" in str(result)
    assert await load_all(spool) == {1: make_entries(1, "a"), 2: make_entries(1, "b")}
    assert read_rows(path, "SELECT * FROM dead_letters") == []
    await commit(spool, Transaction(deletes=[1, 2]))
    assert await load_all(spool) == {}


# -- dead letters


async def test_an_event_that_dies_again_keeps_its_place_with_the_newest_reason(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter(make_entry("a"), 1000, History(2, (10, 20)), "first")]))
    await commit(spool, Transaction(dead=[make_letter(make_entry("a"), 2000, History(3, (30, 40, 50)), "second")]))

    rows = read_rows(path, "SELECT log_id, reason, attempts, attempted_at_ms, died_at_ms FROM dead_letters")
    assert rows == [("a", "second", 5, "[10,20,30,40,50]", 2000)]


async def test_a_damaged_event_becomes_a_dead_letter_and_keeps_nothing_from_being_committed(
    spool: Spool, path: Path
) -> None:
    damaged = [b"no json\n{}\n", b"\xff\n\xff\n", b"{}\n{}\n", b""]
    await commit(spool, Transaction(inserts=[NewGroup(1, damaged[:3])]))

    await commit(spool, Transaction(deletes=[1], dead=[make_letter(entry) for entry in [*damaged, make_entry("a")]]))

    assert await load_all(spool) == {}
    assert sorted(entry for (entry,) in read_rows(path, "SELECT entry FROM dead_letters")) == sorted(
        [*damaged, make_entry("a")]
    )


# -- totals


async def test_what_the_file_held_when_it_was_opened_is_known(path: Path) -> None:
    async with open_spool(path) as spool:
        assert spool.totals == Totals(0, 0, 0, 0, 0)
        stored = await commit(spool, Transaction(inserts=[NewGroup(4, make_entries(3)), NewGroup(6, make_entries(2))]))
        await commit(spool, Transaction(dead=[make_letter(make_entry("dead", 100)), make_letter(make_entry("x", 70))]))
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(7, make_entries(9))]))

        assert spool.totals == Totals(2, 5, sum(stored.values()), 2, 170 + 2 * len("reason"))


async def test_deleting_a_group_writes_few_pages_however_many_it_lay_in(spool: Spool) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(1, [make_entry(os.urandom(500).hex()) for _ in range(1000)])]))
    assert await spool.call(Store.write_log_back)

    await commit(spool, Transaction(deletes=[1]))

    _, frames, _ = await spool.call(lambda store: store.connection.execute("PRAGMA wal_checkpoint").fetchone())
    assert 0 < frames < 10


async def test_totals_stay_true_whatever_is_written(spool: Spool, path: Path) -> None:
    groups = [NewGroup(row_id, make_entries(5, f"{row_id}-", 300)) for row_id in range(1, 7)]
    await commit(spool, Transaction(inserts=groups, dead=[make_letter(make_entry(name, 90)) for name in "abcdef"]))
    with pytest.raises(AssertionError, match="UNIQUE"):
        await commit(spool, Transaction(deletes=[1], dead=[make_letter(make_entry("g"))], inserts=[groups[3]]))
    await commit(spool, Transaction(deletes=[1, 2, 77], shrinks=[(3, groups[2].entries[:1], History(1))]))
    await commit(spool, Transaction(dead=[make_letter(make_entry("a", 200), reason="wörth")]))
    with inspect(path) as inspection:
        inspection.request_replay(Choice(("b",)))
        inspection.purge(Choice(("c",)))
    await spool.replay(8, 10)
    letters = await spool.call(lambda store: expiry.list_expired(store, 2000, 1))
    await spool.call(lambda store: expiry.expire(store, [letter.id for letter in letters], 2000))

    counted = read_rows(
        path,
        """SELECT count(*), sum(events), sum(length(body)), (SELECT count(*) FROM dead_letters),
        (SELECT sum(length(entry) + length(CAST(reason AS BLOB))) FROM dead_letters) FROM groups""",
    )
    assert read_rows(path, "SELECT groups, events, stored_bytes, dead_letters, dead_bytes FROM totals") == counted
    assert counted[0][0] == 5
    assert counted[0][3] == 3
    await spool.take_requests()
    assert spool.dead_bytes == counted[0][4]
