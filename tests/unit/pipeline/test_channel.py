"""The channel is bounded, and bulks are cut from it by number, by bytes and by time."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from forebay.history import History
from forebay.model import Entry
from forebay.pipeline.channel import Channel, Limits
from unit.pipeline.fakes import Clock, make_channel, make_entries, make_entry, make_group, make_parts, settle_down

MONTHS = ("2026-11", "2026-12", "2026-11")


def add(channel: Channel, entries: list[Entry]) -> bool:
    return channel.add(make_parts(entries))


async def test_takes_groups_up_to_its_limit_in_events() -> None:
    channel = make_channel(events_max=10)

    assert channel.offer(make_group(make_entries(6)))
    assert not channel.offer(make_group(make_entries(5)))
    assert channel.offer(make_group(make_entries(4)))
    assert not add(channel, make_entries(1))
    assert channel.events == 10
    assert channel.room[0] == 0


async def test_takes_groups_up_to_its_limit_in_bytes() -> None:
    channel = make_channel(bytes_max=1000)

    assert channel.offer(make_group(make_entries(6, size=100)))
    assert not channel.offer(make_group(make_entries(1, size=401)))
    assert add(channel, make_entries(1, size=400))
    assert not add(channel, make_entries(1, size=100))
    assert channel.entry_bytes == 1000
    assert channel.room == (9993, 0)


async def test_empty_it_takes_anything() -> None:
    channel = make_channel(events_max=3, bytes_max=300)

    assert channel.offer(make_group(make_entries(50, size=100)))
    assert channel.room == (0, 0)
    channel.take()
    assert channel.events == channel.entry_bytes == 0
    assert add(channel, make_entries(50, size=100))


async def test_a_refused_offer_changes_nothing() -> None:
    channel = make_channel(events_max=10)
    channel.offer(make_group(make_entries(8)))
    before = channel.events, channel.entry_bytes

    assert not channel.offer(make_group(make_entries(3, "refused")))
    assert not add(channel, make_entries(3, "refused"))
    assert (channel.events, channel.entry_bytes) == before
    assert channel.take().entries == make_entries(8)


async def test_bulks_are_exact_and_cut_across_groups() -> None:
    channel = make_channel()
    entries = make_entries(2600)
    groups = [make_group(entries[:600]), make_group(entries[600:1800]), make_group(entries[1800:])]
    for group in groups:
        assert channel.offer(group)

    bulks = [channel.take() for _ in range(3)]

    assert [len(bulk.entries) for bulk in bulks] == [1000, 1000, 600]
    assert [entry for bulk in bulks for entry in bulk.entries] == entries
    assert [[(groups.index(group), len(part)) for group, part in bulk.slices] for bulk in bulks] == [
        [(0, 600), (1, 400)],
        [(1, 800), (2, 200)],
        [(2, 600)],
    ]
    assert channel.events == channel.entry_bytes == 0
    assert channel.take().entries == []


async def test_the_limit_in_bytes_cuts_a_bulk() -> None:
    channel = make_channel(bulk_bytes_max=1000)
    first, second = make_group(make_entries(7, "a", size=100)), make_group(make_entries(7, "b", size=100))
    channel.offer(first)
    channel.offer(second)

    bulks = [channel.take(), channel.take()]

    assert [len(bulk.entries) for bulk in bulks] == [10, 4]
    assert [(group, len(part)) for group, part in bulks[0].slices] == [(first, 7), (second, 3)]


async def test_an_event_that_does_not_fit_behind_others_waits_for_the_next_bulk() -> None:
    channel = make_channel(bulk_bytes_max=1000)
    channel.offer(make_group([make_entry("small", 200), make_entry("large", 900), make_entry("after", 100)]))

    assert channel.take().entries == [make_entry("small", 200)]
    assert channel.take().entries == [make_entry("large", 900), make_entry("after", 100)]


async def test_a_giant_event_goes_alone() -> None:
    channel = make_channel(bulk_bytes_max=1000)
    giant = make_entry("giant", 5000)
    channel.offer(make_group([giant, make_entry("after", 100)]))

    assert channel.take().entries == [giant]
    assert channel.take().entries == [make_entry("after", 100)]


async def test_a_bulk_is_due_when_there_are_events_enough() -> None:
    channel = make_channel(bulk_events_max=10)
    waiting = asyncio.create_task(channel.wait_due())

    channel.offer(make_group(make_entries(9)))
    await settle_down()
    assert not waiting.done()
    add(channel, make_entries(1))
    await asyncio.wait_for(waiting, 1)


async def test_a_bulk_is_due_when_there_are_bytes_enough() -> None:
    channel = make_channel(bulk_bytes_max=1000)
    waiting = asyncio.create_task(channel.wait_due())

    channel.offer(make_group(make_entries(9, size=100)))
    await settle_down()
    assert not waiting.done()
    channel.offer(make_group(make_entries(1, size=100)))
    await asyncio.wait_for(waiting, 1)


@pytest.mark.parametrize("early_s", [0, 0.0005])
async def test_a_bulk_is_due_when_the_oldest_event_has_waited_long_enough(early_s: float) -> None:
    clock = Clock(early_s)
    channel = make_channel(bulk_interval_s=10, clock=clock)
    add(channel, make_entries(1))
    waiting = asyncio.create_task(channel.wait_due())

    await clock.advance(6)
    add(channel, make_entries(1, "later"))
    await clock.advance(4 - 2 * early_s - 0.001)
    assert not waiting.done()
    await clock.advance(0.001 + early_s)
    assert waiting.done()
    assert len(channel.take().entries) == 2


async def test_the_interval_begins_anew_with_the_oldest_event_that_is_left() -> None:
    clock = Clock()
    channel = make_channel(bulk_events_max=5, bulk_interval_s=10, clock=clock)
    channel.offer(make_group(make_entries(5)))
    await clock.advance(9)
    channel.offer(make_group(make_entries(1)))
    channel.take()
    waiting = asyncio.create_task(channel.wait_due())

    await clock.advance(9)
    assert not waiting.done()
    await clock.advance(1)
    assert waiting.done()


async def test_the_rest_of_an_old_group_is_due_at_once() -> None:
    clock = Clock()
    channel = make_channel(bulk_events_max=5, bulk_interval_s=10, clock=clock)
    channel.offer(make_group(make_entries(7)))
    await clock.advance(11)
    channel.take()
    waiting = asyncio.create_task(channel.wait_due())

    await clock.advance(0)
    assert waiting.done()


async def test_an_empty_channel_is_never_due() -> None:
    clock = Clock()
    channel = make_channel(bulk_interval_s=10, clock=clock)
    add(channel, make_entries(1))
    channel.take()
    waiting = asyncio.create_task(channel.wait_due())

    await clock.advance(60)
    assert not waiting.done()
    waiting.cancel()


def test_no_interval_is_missed_by_the_servers_event_loop() -> None:
    # Its clock counts whole milliseconds, so that a timer can seem to come too early.
    async def wait() -> None:
        await asyncio.sleep(0.0007)
        channel = Channel(Limits(1000, 1_000_000, 100, 1_000_000, 0.0301), asyncio.get_running_loop())
        add(channel, make_entries(1))
        await channel.wait_due()

    async def wait_often() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(wait())
                await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(wait_often())


async def test_a_flush_makes_everything_due_now_and_from_now_on() -> None:
    channel = make_channel()
    add(channel, make_entries(1))
    waiting = asyncio.create_task(channel.wait_due())
    await settle_down()
    assert not waiting.done()

    channel.flush()
    await asyncio.wait_for(waiting, 1)
    channel.take()
    waiting = asyncio.create_task(channel.wait_due())
    await settle_down()
    assert not waiting.done()
    channel.offer(make_group(make_entries(1)))
    await asyncio.wait_for(waiting, 1)


@pytest.mark.parametrize("refuse", ["offer", "add", "wait_room"])
async def test_a_channel_smaller_than_a_bulk_is_due_when_it_has_no_room(refuse: str) -> None:
    channel = make_channel(events_max=10, bulk_events_max=1000)
    channel.offer(make_group(make_entries(7)))
    waiting = asyncio.create_task(channel.wait_due())
    await settle_down()
    assert not waiting.done()

    room: asyncio.Task[None] | None = None
    if refuse == "offer":
        assert not channel.offer(make_group(make_entries(4)))
    elif refuse == "add":
        assert not add(channel, make_entries(4))
    else:
        room = asyncio.create_task(channel.wait_room(4, 0))
    await asyncio.wait_for(waiting, 1)
    assert len(channel.take().entries) == 7
    if room:
        await asyncio.wait_for(room, 1)

    channel.offer(make_group(make_entries(1)))
    waiting = asyncio.create_task(channel.wait_due())
    await settle_down()
    assert not waiting.done(), "there is room again"
    waiting.cancel()


async def test_room_is_waited_for_until_a_bulk_has_made_it() -> None:
    channel = make_channel(events_max=10, bulk_events_max=4)
    channel.offer(make_group(make_entries(10)))
    waiting = asyncio.create_task(channel.wait_room(6, 0))
    await settle_down()

    channel.take()
    await settle_down()
    assert not waiting.done()
    channel.take()
    await asyncio.wait_for(waiting, 1)


async def test_events_without_a_row_join_one_group() -> None:
    channel = make_channel(bulk_events_max=10)
    for number in range(10):
        add(channel, [make_entry(f"single{number}")])

    bulk = channel.take()

    assert len(bulk.slices) == 1
    assert bulk.slices[0][0].row_id is None
    assert bulk.entries == make_entries(10, "single")


async def test_a_group_without_a_row_grows_no_larger_than_a_bulk() -> None:
    channel = make_channel(bulk_events_max=10)
    for prefix in "abc":
        add(channel, make_entries(4, prefix))

    assert [len(group.entries) for group in channel.drain()] == [8, 4]


async def test_a_group_without_a_row_takes_no_more_bytes_than_a_bulk() -> None:
    # It may become a row, and a row has to be loaded in one piece.
    channel = make_channel(bulk_bytes_max=1000)
    for prefix in "abc":
        add(channel, make_entries(4, prefix, size=100))

    assert [group.entry_bytes for group in channel.drain()] == [800, 400]


async def test_nothing_joins_a_group_that_has_left_the_queue() -> None:
    channel = make_channel(bulk_events_max=10)
    add(channel, make_entries(3, "gone"))
    gone = channel.take().slices[0][0]

    add(channel, make_entries(2, "new"))

    assert gone.entries == make_entries(3, "gone")
    assert channel.events == 2
    assert channel.take().entries == make_entries(2, "new")


async def test_events_that_join_a_group_of_which_a_bulk_took_a_part_are_delivered() -> None:
    channel = make_channel(bulk_events_max=10, bulk_bytes_max=1000)
    channel.offer(make_group(make_entries(8, "stored", size=100), row_id=1))
    add(channel, make_entries(4, "old", size=100))
    assert channel.take().entries == [*make_entries(8, "stored", size=100), *make_entries(2, "old", size=100)]

    add(channel, make_entries(1, "new", size=100))

    bulk = channel.take()
    assert bulk.entries == [make_entry("old2", 100), make_entry("old3", 100), make_entry("new0", 100)]
    assert len(bulk.slices) == 1
    assert channel.events == channel.entry_bytes == 0
    assert channel.drain() == []


async def test_nothing_joins_a_group_that_was_drained() -> None:
    channel = make_channel()
    add(channel, make_entries(1, "gone"))
    (gone,) = channel.drain()

    add(channel, make_entries(1, "new"))

    assert gone.entries == make_entries(1, "gone")
    assert channel.take().entries == make_entries(1, "new")


async def test_draining_hands_out_every_group_and_leaves_the_channel_empty() -> None:
    channel = make_channel(bulk_events_max=5)
    stored, other = make_group(make_entries(8, "a"), row_id=1), make_group(make_entries(1, "b"), row_id=2)
    channel.offer(stored)
    channel.offer(other)
    channel.take()

    assert channel.drain() == [stored, other]
    assert stored.cut == 5
    assert channel.events == channel.entry_bytes == 0
    assert channel.take().entries == []


async def test_a_bulk_can_be_cut_smaller() -> None:
    channel = make_channel()
    channel.offer(make_group(make_entries(5)))

    assert channel.take(1).entries == make_entries(5)[:1]
    assert channel.take(2).entries == make_entries(5)[1:3]
    assert channel.take().entries == make_entries(5)[3:]


async def test_the_groups_of_an_index_are_taken_out_and_make_room() -> None:
    channel = make_channel(events_max=30)
    groups = [make_group(make_entries(10, name, month=month)) for name, month in zip("abc", MONTHS, strict=True)]
    for group in groups:
        channel.offer(group)
    waiting = asyncio.create_task(channel.wait_room(10, 0))
    await settle_down()
    assert not waiting.done()

    assert channel.withdraw("events_test_2026-12") == [groups[1]]

    await asyncio.wait_for(waiting, 1)
    assert channel.events == 20
    assert channel.entry_bytes == groups[0].entry_bytes + groups[2].entry_bytes
    assert channel.take().entries == [*groups[0].entries, *groups[2].entries]


async def test_a_group_that_a_bulk_took_a_part_of_stays() -> None:
    channel = make_channel()
    channel.offer(make_group(make_entries(5)))
    channel.take(1)
    assert channel.withdraw("events_test_2026-11") == []
    assert channel.events == 4


async def test_nothing_joins_a_group_that_was_taken_out() -> None:
    channel = make_channel()
    add(channel, make_entries(3, "gone"))
    (gone,) = channel.withdraw("events_test_2026-11")
    add(channel, make_entries(2, "new"))
    assert gone.entries == make_entries(3, "gone")
    assert channel.take().entries == make_entries(2, "new")


async def test_events_of_two_indices_are_groups_of_their_own() -> None:
    channel = make_channel()
    add(channel, make_entries(2, "a"))
    november, december = make_entries(2, "b"), make_entries(2, "b", month="2026-12")
    add(channel, [november[0], december[0], november[1], december[1]])
    add(channel, make_entries(1, "c", month="2026-12"))

    bulk = channel.take()

    assert [(group.index, list(part)) for group, part in bulk.slices] == [
        ("events_test_2026-11", [*make_entries(2, "a"), *november]),
        ("events_test_2026-12", [*december, *make_entries(1, "c", month="2026-12")]),
    ]
    assert channel.events == channel.entry_bytes == 0


async def test_a_bulk_can_be_cut_to_fewer_bytes_and_to_no_more_than_its_limit() -> None:
    channel = make_channel(bulk_bytes_max=1000)
    channel.offer(make_group(make_entries(20, size=100)))

    assert len(channel.take(bytes_max=350).entries) == 3
    assert len(channel.take(bytes_max=1).entries) == 1, "one goes whatever its size"
    assert len(channel.take(bytes_max=5000).entries) == 10


async def test_an_event_that_was_never_refused_is_brought_to_the_front() -> None:
    channel = make_channel()
    refused = History(1, (1,), refused_status=400)
    groups = [
        make_group(make_entries(2, "a"), 1, refused),
        make_group(make_entries(2, "b"), 2),
        make_group(make_entries(2, "c"), 3),
    ]
    for group in groups:
        channel.offer(group)

    channel.bring_forward()

    assert [channel.take(2).entries for _ in range(3)] == [groups[number].entries for number in (1, 0, 2)]


async def test_if_all_were_refused_the_order_stays() -> None:
    channel = make_channel()
    refused = History(1, (1,), refused_status=400)
    for number, name in enumerate("ab"):
        channel.offer(make_group(make_entries(2, name), number, refused))

    channel.bring_forward()

    assert channel.take().entries == [*make_entries(2, "a"), *make_entries(2, "b")]


async def test_a_group_that_a_bulk_took_a_part_of_goes_on_behind_one_that_was_brought_forward() -> None:
    channel = make_channel()
    channel.offer(make_group(make_entries(3, "a"), 1, History(1, (1,), refused_status=400)))
    channel.take(1)
    channel.offer(make_group(make_entries(2, "b"), 2))

    channel.bring_forward()

    assert channel.take().entries == [*make_entries(2, "b"), *make_entries(3, "a")[1:]]
    assert channel.events == channel.entry_bytes == 0
    assert channel.drain() == []
