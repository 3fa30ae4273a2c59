"""What is committed is on disk and comes back as it was, and commands get what they asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from forebay.clock import now_ms
from forebay.errors import GroupDamaged, SpoolUnavailable
from forebay.model import DeadLetter, Entry, History
from forebay.spool import requests
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.beside.requests import Request
from forebay.spool.loading import EVERY, Wanted
from forebay.spool.records import NewGroup, StoredGroup, Totals, Transaction
from forebay.spool.spool import Spool
from forebay.spool.upkeep import expiry
from unit.pipeline.fakes import commit, make_entries, make_entry, open_spool, read_rows

PLENTY = (10**9, 10**9)
SRC = Path(__file__).parents[3] / "src"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    async with open_spool(path) as spool:
        yield spool


ONCE = History(1, (900,))


def make_letter(entry: Entry, died_at_ms: int = 1000, history: History = ONCE, reason: str = "reason") -> DeadLetter:
    return DeadLetter(entry, "type", reason, history, died_at_ms)


async def try_to_commit(spool: Spool, transaction: Transaction) -> Mapping[int, int] | SpoolUnavailable:
    future: asyncio.Future[Mapping[int, int] | SpoolUnavailable] = asyncio.get_running_loop().create_future()
    spool.commit(transaction, future.set_result)
    return await asyncio.wait_for(future, 5)


async def load_all(spool: Spool) -> dict[int, list[Entry]]:
    return {group.id: group.entries for group in await spool.load(0, frozenset(), PLENTY, EVERY)}


# -- what is committed


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


# -- what is read


async def test_groups_are_loaded_oldest_first(spool: Spool) -> None:
    rows = [NewGroup(row_id, make_entries(1, f"{row_id}-")) for row_id in (5, 3, 9, 1)]
    await commit(spool, Transaction(inserts=rows))

    assert [group.id for group in await spool.load(0, frozenset(), PLENTY, EVERY)] == [1, 3, 5, 9]
    assert [group.id for group in await spool.load(3, frozenset(), PLENTY, EVERY)] == [5, 9]
    assert [group.id for group in await spool.load(0, {1, 5}, PLENTY, EVERY)] == [3, 9]
    assert await spool.load(9, frozenset(), PLENTY, EVERY) == []


@pytest.mark.parametrize(
    ("room", "loaded"),
    [
        ((3, 10_000), [1]),
        ((5, 10_000), [1]),
        ((6, 10_000), [1, 2]),
        ((100, 599), [1]),
        ((100, 600), [1, 2]),
        ((100, 899), [1, 2]),
        ((100, 900), [1, 2, 3]),
        ((0, 0), [1]),
    ],
)
async def test_only_what_there_is_room_for_is_loaded(spool: Spool, room: tuple[int, int], loaded: list[int]) -> None:
    rows = [NewGroup(row_id, make_entries(3, f"{row_id}-", 100)) for row_id in (1, 2, 3)]
    await commit(spool, Transaction(inserts=rows))

    assert [group.id for group in await spool.load(0, frozenset(), room, EVERY)] == loaded


async def test_what_is_held_takes_none_of_the_room(spool: Spool) -> None:
    rows = [NewGroup(row_id, make_entries(3, f"{row_id}-")) for row_id in (1, 2, 3, 4)]
    await commit(spool, Transaction(inserts=rows))

    assert [group.id for group in await spool.load(0, {1, 3}, (6, 10_000), EVERY)] == [2, 4]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE groups SET body = x'00', codec = 1 WHERE id = 2",
        "UPDATE groups SET body = substr(body, 1, length(body) - 1) WHERE id = 2",
        "UPDATE groups SET body = x'7b7d0a', codec = 0 WHERE id = 2",
        "UPDATE groups SET codec = 9 WHERE id = 2",
    ],
)
async def test_a_damaged_body_is_named_and_what_lies_before_it_is_loaded(spool: Spool, path: Path, damage: str) -> None:
    rows = [NewGroup(row_id, make_entries(10, f"{row_id}-", 200)) for row_id in (1, 2, 3)]
    await commit(spool, Transaction(inserts=rows))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(damage)
        connection.commit()

    assert [group.id for group in await spool.load(0, frozenset(), PLENTY, EVERY)] == [1]
    with pytest.raises(SpoolUnavailable, match="group 2 cannot be read") as caught:
        await spool.load(1, frozenset(), PLENTY, EVERY)
    assert isinstance(caught.value, GroupDamaged)
    assert caught.value.group_id == 2
    with pytest.raises(GroupDamaged):
        await spool.load(1, frozenset(), PLENTY, EVERY)
    assert read_rows(path, "SELECT kind, detail FROM incidents") == [("group_damaged", str(caught.value))], "told once"
    assert [group.id for group in await spool.load(2, frozenset(), PLENTY, EVERY)] == [3]


# -- what is known when it is opened


async def test_what_the_file_held_when_it_was_opened_is_known(path: Path) -> None:
    async with open_spool(path) as spool:
        assert spool.totals == Totals(0, 0, 0, 0, 0)
        stored = await commit(spool, Transaction(inserts=[NewGroup(4, make_entries(3)), NewGroup(6, make_entries(2))]))
        await commit(spool, Transaction(dead=[make_letter(make_entry("dead", 100)), make_letter(make_entry("x", 70))]))
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(7, make_entries(9))]))

        assert spool.totals == Totals(2, 5, sum(stored.values()), 2, 170 + 2 * len("reason"))


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


# -- what a trial takes


NOVEMBER, DECEMBER = "events_test_2026-11", "events_test_2026-12"
REFUSED = History(1, (1,), refused_status=400)


async def load_trial(
    spool: Spool,
    after_id: int = 0,
    left_out: AbstractSet[int] = frozenset(),
    room: tuple[int, int] = PLENTY,
    index: str = NOVEMBER,
) -> list[int]:
    return [group.id for group in await spool.load_trial(index, after_id, left_out, room)]


async def test_a_trial_takes_those_that_were_never_refused_newest_and_oldest_by_turns_then_the_others(
    spool: Spool,
) -> None:
    rows = [NewGroup(row_id, make_entries(1, f"new{row_id}-")) for row_id in (2, 4, 6, 8)]
    refused = [NewGroup(row_id, make_entries(1, f"old{row_id}-"), REFUSED) for row_id in (7, 1, 3)]
    otherwise = [NewGroup(5, make_entries(1, "other"), History(1, (1,), refused_status=403))]
    others = [NewGroup(9, make_entries(1, "december", month="2026-12"))]
    await commit(spool, Transaction(inserts=[*rows, *refused, *otherwise, *others]))

    assert await load_trial(spool) == [8, 2, 6, 4, 1, 3, 5, 7]
    assert await load_trial(spool, index=DECEMBER) == [9]
    assert await load_trial(spool, index="events_test_2027-01") == []


async def test_of_the_refused_ones_a_trial_takes_others_each_time(spool: Spool) -> None:
    rows = [NewGroup(row_id, make_entries(2, f"{row_id}-"), REFUSED) for row_id in (1, 2, 3, 4, 5)]
    await commit(spool, Transaction(inserts=[*rows, NewGroup(6, make_entries(1, "new"))]))

    assert await load_trial(spool, 0, room=(5, 10_000)) == [6, 1, 2]
    assert await load_trial(spool, 2, room=(5, 10_000)) == [6, 3, 4]
    assert await load_trial(spool, 4, room=(5, 10_000)) == [6, 5]


async def test_a_trial_takes_no_more_than_there_is_room_for_and_at_least_one(spool: Spool) -> None:
    rows = [NewGroup(row_id, make_entries(3, f"{row_id}-", 100)) for row_id in (1, 2, 3)]
    await commit(spool, Transaction(inserts=rows))

    assert await load_trial(spool, room=(6, 10_000)) == [3, 1]
    assert await load_trial(spool, room=(100, 599)) == [3]
    assert await load_trial(spool, room=(0, 0)) == [3]


async def test_a_trial_takes_nothing_that_is_in_memory_or_cannot_be_read(spool: Spool, path: Path) -> None:
    rows = [NewGroup(row_id, make_entries(1, f"{row_id}-")) for row_id in (1, 2, 3, 4)]
    await commit(spool, Transaction(inserts=rows))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE groups SET codec = 9 WHERE id = 3")
        connection.commit()

    assert await load_trial(spool, left_out={4}) == [1, 2]


async def test_groups_are_chosen_by_their_index_and_the_status_of_their_last_refusal(spool: Spool) -> None:
    rows = [
        NewGroup(1, make_entries(1, "a")),
        NewGroup(2, make_entries(1, "b", month="2026-12")),
        NewGroup(3, make_entries(1, "c"), REFUSED),
        NewGroup(4, make_entries(1, "d"), History(1, (1,), refused_status=403)),
        NewGroup(5, make_entries(1, "e")),
    ]
    await commit(spool, Transaction(inserts=rows))

    async def load(wanted: Wanted) -> list[StoredGroup]:
        return await spool.load(0, frozenset(), PLENTY, wanted)

    groups = await load(Wanted(indices_left_out=frozenset({DECEMBER}), statuses=frozenset({0, 400})))
    assert [group.id for group in groups] == [1, 3, 5]
    assert [group.id for group in await load(Wanted(index_name=DECEMBER))] == [2]
    assert [group.id for group in await load(Wanted(index_name=NOVEMBER, is_refused=True))] == [3, 4]
    assert [group.id for group in await load(Wanted(statuses=frozenset({403})))] == [4]
    assert [(group.index_name, group.history.refused_status) for group in groups] == [
        (NOVEMBER, 0),
        (NOVEMBER, 400),
        (NOVEMBER, 0),
    ]


# -- what commands ask


async def test_requests_of_commands_are_taken_once(spool: Spool, path: Path) -> None:
    assert await spool.take_requests() == frozenset()
    with inspect(path) as inspection:
        inspection.ask(Request.RETRY)
        inspection.ask(Request.REPLAY)
        inspection.ask(Request.RETRY)

    assert await spool.take_requests() == {"retry", "replay"}
    assert await spool.take_requests() == frozenset()


async def test_dead_letters_become_a_group_again_if_that_was_requested(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter(make_entry(name)) for name in "abcd"]))
    with inspect(path) as inspection:
        for name in "abd":
            inspection.request_replay(Choice((name,)))

    assert (await spool.replay(1, 2))[0] == 2
    assert (await spool.replay(2, 2))[0] == 1
    assert await spool.replay(3, 2) == (0, 0)

    groups = await spool.load(0, frozenset(), PLENTY, EVERY)
    assert {group.id: group.entries for group in groups} == {
        1: [make_entry("a"), make_entry("b")],
        2: [make_entry("d")],
    }
    assert [group.history for group in groups] == [History(), History()]
    assert read_rows(path, "SELECT log_id FROM dead_letters") == [("c",)]


async def test_a_replay_reports_what_the_file_then_holds(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter(make_entry(f"{number}", 200)) for number in range(20)]))
    with inspect(path) as inspection:
        inspection.request_replay(Choice())

    assert await spool.replay(1, 100) == tuple(read_rows(path, "SELECT events, length(body) FROM groups")[0])


async def test_large_dead_letters_become_several_groups(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "REPLAY_BYTES_MAX", 1000)
    sizes = [400, 600, 100, 5000, 100]
    letters = [make_letter(make_entry(f"{number}", size)) for number, size in enumerate(sizes)]
    await commit(spool, Transaction(dead=letters))
    with inspect(path) as inspection:
        inspection.request_replay(Choice())

    assert [(await spool.replay(row_id, 100))[0] for row_id in range(1, 6)] == [2, 1, 1, 1, 0]
    assert [entry for entries in (await load_all(spool)).values() for entry in entries] == [
        letter.entry for letter in letters
    ]


async def test_a_replay_that_fails_leaves_the_dead_letters(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))], dead=[make_letter(make_entry("dead"))]))
    with inspect(path) as inspection:
        inspection.request_replay(Choice())

    with pytest.raises(SpoolUnavailable):
        await spool.replay(1, 10)

    assert read_rows(path, "SELECT log_id, replay FROM dead_letters") == [("dead", 1)]
    assert (await spool.replay(2, 10))[0] == 1
