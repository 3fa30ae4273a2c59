"""Redelivery reads the groups that it wants, as many as there is room for, in the form in which they are sent."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from forebay.errors import GroupDamaged, SpoolUnavailable
from forebay.history import History
from forebay.model import Entry
from forebay.spool.loading import EVERY, Wanted
from forebay.spool.records import NewGroup, StoredGroup, Transaction
from forebay.spool.spool import Spool
from unit.pipeline.fakes import PLENTY, commit, make_entries, make_entry, open_spool, read_rows, settle_down

NOVEMBER, DECEMBER = "events_test_2026-11", "events_test_2026-12"
REFUSED = History(1, (1,), refused_status=400)


# -- any groups


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


# -- groups for a trial


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


# -- refused as malformed


async def test_an_event_that_was_refused_as_malformed_is_read_in_another_form(path: Path) -> None:
    spool = Spool(path)
    spool.start(asyncio.get_running_loop(), lambda entry: entry.replace(b"odd", b"even"))
    odd, good = make_entry("odd"), make_entry("good")
    rows = [
        NewGroup(1, [odd]),
        NewGroup(2, [odd, good], REFUSED),
        NewGroup(3, [odd], History(1, (1,), refused_status=403)),
    ]
    with contextlib.closing(spool):
        await commit(spool, Transaction(inserts=rows))
        loaded = await spool.load(0, frozenset(), PLENTY, EVERY)
        trial = await spool.load_trial(NOVEMBER, 0, frozenset(), PLENTY)
    await settle_down()

    assert {group.id: group.entries for group in loaded} == {1: [odd], 2: [make_entry("even"), good], 3: [odd]}
    assert {group.id: dict(group.originals) for group in loaded} == {1: {}, 2: {make_entry("even"): odd}, 3: {}}
    assert sorted(trial) == loaded


async def test_a_bug_in_the_repair_leaves_events_as_they_are(path: Path) -> None:
    def fail(entry: Entry) -> Entry:
        raise KeyError(entry)

    async with open_spool(path, fail) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(2), History(1, (1,), refused_status=400))]))
        (group,) = await spool.load(0, set(), PLENTY, EVERY)
    assert (group.entries, dict(group.originals)) == (make_entries(2), {})
    assert spool.lost == ""
