"""Everything that goes to the spool passes through one commit at a time, and nobody is told before it has succeeded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import structs

from forebay.errors import EventsTakenBack, SpoolLost, SpoolUnavailable
from forebay.history import History
from forebay.model import DELIVERED, Ack, Admission, Outcome
from forebay.pipeline.admitter import FULL_RETRY_AFTER_S, Admitter
from forebay.pipeline.channel import Channel
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.group import Bulk, Group, Settlement
from forebay.pipeline.journal import FAILURE_REMEMBERED_S, RETRY_S, Journal
from forebay.pipeline.settlement import abandon, settle
from forebay.spool.records import NewGroup, StoredGroup, Transaction
from unit.pipeline.fakes import (
    DEAD,
    FAULTY,
    PAUSE,
    RETRY,
    Clock,
    FakeCommitter,
    Inbox,
    Parts,
    assert_ledger_is_true,
    make_channel,
    make_entries,
    make_entry,
    make_group,
    make_parts,
    open_spool,
    put_on_hold,
    settle_down,
)

CREATED, PENDING = [Admission.CREATED], [Admission.PENDING]
NOVEMBER = "events_test_2026-11"


STRUCK = structs.replace(FAULTY, is_own=True, is_struck=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def parts(clock: Clock) -> Parts:
    return Parts(FakeCommitter(last_group_id=7), channel=make_channel(events_max=20), clock=clock)


def settle_bulk(journal: Journal, channel: Channel, *outcomes: Outcome) -> None:
    """Take a bulk from the channel and record its outcomes, the last of them for all other events."""
    bulk = channel.take()
    record(journal, bulk, [*outcomes[: len(bulk.entries)], *[outcomes[-1]] * (len(bulk.entries) - len(outcomes))])


def record(journal: Journal, bulk: Bulk, outcomes: Sequence[Outcome]) -> None:
    for settlement in settle(bulk, outcomes, 1000, journal.new_id, Evidence()):
        journal.settle(settlement)


def give_up(parts: Parts, groups: Sequence[Group]) -> None:
    for settlement in abandon(groups, 1000, parts.journal.new_id, parts.evidence):
        parts.journal.settle(settlement)


async def store(parts: Parts, *inboxes: Inbox) -> None:
    for inbox in inboxes:
        parts.journal.submit(inbox)
    await parts.spool.answer()


async def test_a_submission_hears_nothing_before_its_commit_has_succeeded(parts: Parts) -> None:
    inbox = Inbox(make_entries(3))
    parts.journal.submit(inbox)
    await settle_down()
    assert inbox.heard == []
    assert parts.channel.events == 0

    transaction = await parts.spool.answer()

    assert transaction == Transaction(inserts=[NewGroup(8, make_entries(3))])
    assert inbox.heard == CREATED
    assert parts.channel.take().entries == make_entries(3)
    assert parts.spool.open == []


async def test_requests_that_arrive_together_are_committed_together(parts: Parts) -> None:
    inboxes = [Inbox(make_entries(2, prefix)) for prefix in "abc"]

    await store(parts, *inboxes)

    assert [len(transaction.inserts) for transaction in parts.spool.transactions] == [1]
    assert [inbox.heard for inbox in inboxes] == [CREATED] * 3


async def test_requests_that_arrive_during_a_commit_go_in_the_next(parts: Parts) -> None:
    first, second, third = (Inbox(make_entries(1, prefix)) for prefix in "abc")
    parts.journal.submit(first)
    await settle_down()
    parts.journal.submit(second)
    await settle_down()
    parts.journal.submit(third)

    await parts.spool.answer()
    assert (first.heard, second.heard, third.heard) == (CREATED, [], [])

    transaction = await parts.spool.answer()
    assert transaction.inserts == [NewGroup(9, [*second.entries, *third.entries])]
    assert second.heard == third.heard == CREATED
    assert parts.counters.commits == 2


async def test_settlements_ride_in_the_commits_of_submissions(parts: Parts) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, DELIVERED)
    parts.journal.submit(Inbox(make_entries(1, "other")))

    transaction = await parts.spool.answer()

    assert transaction == Transaction(inserts=[NewGroup(9, make_entries(1, "other"))], deletes=[8])


async def test_a_settlement_with_nothing_to_write_makes_no_commit(parts: Parts) -> None:
    parts.channel.add(make_parts(make_entries(1)))
    settle_bulk(parts.journal, parts.channel, DELIVERED)

    await settle_down()
    assert parts.spool.transactions == []


async def test_large_batches_are_split_into_rows(parts: Parts) -> None:
    inbox = Inbox(make_entries(15))

    await store(parts, inbox)

    assert [len(group.entries) for group in parts.spool.transactions[0].inserts] == [10, 5]
    assert inbox.heard == CREATED
    assert parts.channel.take().entries == make_entries(15)


async def test_events_that_the_channel_has_no_room_for_are_pending_and_redelivery_hears_of_it(parts: Parts) -> None:
    await store(parts, Inbox(make_entries(10, "a")), Inbox(make_entries(8, "b")))
    assert parts.wake.heard == []

    inbox = Inbox(make_entries(3, "c"))
    await store(parts, inbox)

    assert inbox.heard == PENDING
    assert parts.wake.heard == ["on"]
    assert parts.counters.overflowed == 3
    assert parts.channel.events == 18
    assert parts.ledger.loaded.keys() == {8, 9}


async def test_a_batch_of_which_a_part_is_pending_is_told_so(parts: Parts) -> None:
    inbox, small = Inbox(make_entries(25, "a")), Inbox(make_entries(5, "b"))

    await store(parts, inbox, small)

    # Rows of 10, 10 and 10: the channel has room for two.
    assert inbox.heard == small.heard == PENDING
    assert parts.ledger.pending_events == 10


async def test_a_failed_commit_refuses_its_submissions(parts: Parts) -> None:
    inbox, later = Inbox(make_entries(3)), Inbox(make_entries(1, "later"))
    parts.journal.submit(inbox)
    await settle_down()
    parts.journal.submit(later)

    await parts.spool.answer("disk full")

    (error,) = inbox.heard
    assert isinstance(error, SpoolUnavailable)
    assert str(error) == "disk full"
    assert parts.channel.events == parts.ledger.stored_events == 0
    assert parts.counters.commit_failures == 1

    await parts.spool.answer()
    assert later.heard == CREATED, "it was not in the commit that failed"


async def test_a_failure_is_remembered_until_a_commit_succeeds_or_for_a_while(parts: Parts, clock: Clock) -> None:
    assert parts.journal.failure == ""
    parts.journal.submit(Inbox(make_entries(1)))
    await parts.spool.answer("disk full")
    assert parts.journal.failure == "disk full"

    await clock.advance(FAILURE_REMEMBERED_S - 1)
    assert parts.journal.failure == "disk full"
    await clock.advance(1)
    assert parts.journal.failure == ""

    parts.journal.submit(Inbox(make_entries(1)))
    await parts.spool.answer("disk full")
    parts.journal.submit(Inbox(make_entries(1)))
    await parts.spool.answer()
    assert parts.journal.failure == ""


async def test_a_settlement_that_could_not_be_written_is_kept_and_its_groups_stay_held(
    parts: Parts, clock: Clock
) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, DELIVERED)

    await parts.spool.answer("disk full")
    assert parts.ledger.loaded.keys() == {8}
    assert parts.ledger.stored_events == 3
    await clock.advance(RETRY_S / 2)
    assert parts.spool.open == []

    await clock.advance(RETRY_S / 2)
    transaction = await parts.spool.answer()
    assert transaction == Transaction(deletes=[8])
    assert parts.ledger.loaded == {}
    assert parts.ledger.stored_events == 0


async def test_deletions_go_on_alone_when_insertions_fail(parts: Parts) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, DELIVERED)
    refused, waiting = Inbox(make_entries(1, "refused")), Inbox(make_entries(1, "waiting"))
    parts.journal.submit(refused)
    await settle_down()
    parts.journal.submit(waiting)

    await parts.spool.answer("disk full")
    assert isinstance(refused.heard[0], SpoolUnavailable)
    transaction = await parts.spool.answer()
    assert transaction == Transaction(deletes=[8]), "nothing is inserted before there is room"
    assert waiting.heard == []

    transaction = await parts.spool.answer()
    assert [group.entries for group in transaction.inserts] == [waiting.entries]
    assert waiting.heard == CREATED


async def test_settlements_that_fail_again_and_again_are_not_tried_ever_more_often(parts: Parts, clock: Clock) -> None:
    parts.journal.settle(Settlement(Transaction(deletes=[3]), []))
    await parts.spool.answer("disk full")
    for _ in range(50):
        inbox = Inbox(make_entries(1))
        parts.journal.submit(inbox)
        await parts.spool.answer("disk full")
        await parts.spool.answer("disk full")
        assert isinstance(inbox.heard[0], SpoolUnavailable)

    assert len(clock.waiting) == 1


async def test_settlements_are_written_in_their_order_after_a_failure(parts: Parts, clock: Clock) -> None:
    parts.journal.settle(Settlement(Transaction(deletes=[1]), []))
    await settle_down()
    parts.journal.settle(Settlement(Transaction(deletes=[2]), []))
    await parts.spool.answer("locked")
    await clock.advance(RETRY_S)

    assert (await parts.spool.answer()).deletes == [1, 2]


async def test_nothing_is_redelivered_while_settlements_cannot_be_written(parts: Parts, clock: Clock) -> None:
    await asyncio.wait_for(parts.journal.wait_settling(), 1)
    parts.journal.submit(Inbox(make_entries(1)))
    await parts.spool.answer("disk full")
    await asyncio.wait_for(parts.journal.wait_settling(), 1)

    parts.journal.settle(Settlement(Transaction(deletes=[1]), []))
    await parts.spool.answer("disk full")
    waiting = asyncio.create_task(parts.journal.wait_settling())
    await clock.advance(RETRY_S)
    assert not waiting.done()
    await parts.spool.answer("disk full")
    await clock.advance(RETRY_S)
    await parts.spool.answer()
    await asyncio.wait_for(waiting, 1)


async def test_it_can_be_waited_for_that_everything_is_written(parts: Parts, clock: Clock) -> None:
    await asyncio.wait_for(parts.journal.wait_written(), 1)
    parts.journal.settle(Settlement(Transaction(deletes=[1]), []))
    waiting = asyncio.create_task(parts.journal.wait_written())

    await parts.spool.answer("disk full")
    assert not waiting.done()
    await clock.advance(RETRY_S)
    parts.journal.submit(Inbox(make_entries(1)))
    await parts.spool.answer()
    assert not waiting.done()
    await parts.spool.answer()
    await asyncio.wait_for(waiting, 1)


async def test_a_spool_that_answers_twice_is_heard_once(parts: Parts) -> None:
    inbox = Inbox(make_entries(1))
    parts.journal.submit(inbox)
    await settle_down()
    _, done = parts.spool.open[0]
    await parts.spool.answer()

    done(SpoolUnavailable("once more"))

    assert inbox.heard == CREATED
    assert parts.channel.events == 1


async def test_numbers_go_on_behind_the_last_one_of_the_file(parts: Parts) -> None:
    assert [parts.journal.new_id(), parts.journal.new_id()] == [8, 9]


async def test_the_ledger_always_equals_the_file(tmp_path: Path) -> None:
    """Every kind of settlement in a random order, compared with a real file after every commit."""
    chance = random.Random(20261124)
    path = tmp_path / "spool.db"
    async with open_spool(path) as spool:
        parts = Parts(spool, channel=make_channel(events_max=40, bulk_events_max=10))
        channel, journal = parts.channel, parts.journal
        inboxes: list[Inbox] = []
        for number in range(150):
            inbox = Inbox(make_entries(chance.choice((1, 3, 9, 14)), f"{number}-", chance.choice((0, 200))))
            if chance.random() < 0.3:
                channel.add(inbox.parts)
            else:
                inboxes.append(inbox)
                journal.submit(inbox)
            if chance.random() < 0.8:
                outcomes = chance.choices((DELIVERED, RETRY, PAUSE, FAULTY, DEAD), (6, 2, 1, 1, 1), k=10)
                settle_bulk(journal, channel, *chance.choice((outcomes, [DELIVERED], [RETRY])))
            if chance.random() < 0.7:
                await asyncio.wait_for(journal.wait_written(), 5)
                assert_ledger_is_true(parts.ledger, path)
            if chance.random() < 0.2:
                for stored in await parts.ledger.load(0, (10, 1000)):
                    group = Group.from_row(stored)
                    if channel.offer(group):
                        parts.ledger.add(group)

        give_up(parts, channel.drain())
        await asyncio.wait_for(journal.wait_written(), 5)
        assert all(len(inbox.heard) == 1 for inbox in inboxes)
        assert_ledger_is_true(parts.ledger, path)


async def test_the_ledger_equals_the_file_when_a_group_was_given_up_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    async with open_spool(path) as spool:
        parts = Parts(spool, channel=make_channel(bulk_events_max=6))
        channel, journal = parts.channel, parts.journal
        journal.submit(Inbox(make_entries(10)))
        await journal.wait_written()
        channel.add(make_parts([make_entry("memory")]))
        settle_bulk(journal, channel, DELIVERED)

        give_up(parts, channel.drain())
        await journal.wait_written()

        assert parts.ledger.stored_events == 5
        assert_ledger_is_true(parts.ledger, path)


# -- the door before it


async def test_events_that_wait_for_the_disk_go_to_the_spool(parts: Parts) -> None:
    inbox = Inbox(make_entries(1))
    Admitter(parts.channel, parts.journal, parts.holds, 10_000).admit(inbox, Ack.DISK)

    await settle_down()
    assert inbox.heard == []
    await parts.spool.answer()
    assert inbox.heard == CREATED


async def test_events_that_do_not_wait_are_safe_in_the_channel(parts: Parts) -> None:
    inbox = Inbox(make_entries(1))
    Admitter(parts.channel, parts.journal, parts.holds, 10_000).admit(inbox, Ack.MEMORY)

    await settle_down()
    assert inbox.heard == CREATED
    assert parts.channel.take().entries == inbox.entries
    assert parts.spool.transactions == []


async def test_events_that_do_not_wait_go_to_the_spool_if_the_channel_has_no_room(parts: Parts) -> None:
    parts.channel.add(make_parts(make_entries(20)))
    inbox = Inbox(make_entries(1))
    Admitter(parts.channel, parts.journal, parts.holds, 10_000).admit(inbox, Ack.MEMORY)

    await settle_down()
    assert inbox.heard == []
    await parts.spool.answer()
    assert inbox.heard == PENDING


@pytest.mark.parametrize("ack", Ack)
async def test_a_full_spool_takes_nothing(parts: Parts, ack: Ack) -> None:
    admitter = Admitter(parts.channel, parts.journal, parts.holds, 10)
    assert not admitter.full
    parts.ledger.store(1, 10)
    assert admitter.full
    inbox = Inbox(make_entries(1))

    admitter.admit(inbox, ack)

    await settle_down()
    (error,) = inbox.heard
    assert isinstance(error, SpoolUnavailable)
    assert error.retry_after_s == FULL_RETRY_AFTER_S
    assert parts.channel.events == 0
    assert parts.spool.transactions == []


async def test_while_settlements_cannot_be_written_no_event_is_taken_into_memory_alone(parts: Parts) -> None:
    admitter = Admitter(parts.channel, parts.journal, parts.holds, 10_000)
    parts.channel.offer(make_group(make_entries(1)))
    bulk = parts.channel.take()
    record(parts.journal, bulk, [RETRY])
    await parts.spool.answer("disk full")
    inbox = Inbox(make_entries(1))

    admitter.admit(inbox, Ack.MEMORY)

    await settle_down()
    assert inbox.heard == []
    assert parts.channel.events == 0
    await parts.spool.answer("disk full")
    assert isinstance(inbox.heard[0], SpoolUnavailable)


async def test_on_a_full_disk_rows_are_deleted_though_other_events_of_the_bulk_can_get_none(
    parts: Parts, clock: Clock
) -> None:
    await store(parts, Inbox(make_entries(2)))
    (stored,) = parts.ledger.loaded
    parts.channel.add(make_parts(make_entries(3, "memory")))
    bulk = parts.channel.take()
    record(parts.journal, bulk, [DELIVERED] * 2 + [RETRY] * 3)

    whole = await parts.spool.answer("disk full")
    assert (len(whole.inserts), whole.deletes) == (1, [stored])
    assert await parts.spool.answer() == Transaction(deletes=[stored])

    assert parts.ledger.stored_events == 0
    await asyncio.wait_for(parts.journal.wait_settling(), 1)
    assert parts.journal.is_behind
    assert await parts.spool.answer("disk full") == Transaction(inserts=whole.inserts)
    await clock.advance(RETRY_S)
    assert await parts.spool.answer() == Transaction(inserts=whole.inserts)
    assert parts.ledger.pending_events == 3
    assert not parts.journal.is_behind


@pytest.mark.parametrize("ack", Ack)
async def test_a_closed_door_admits_nothing(parts: Parts, ack: Ack) -> None:
    admitter = Admitter(parts.channel, parts.journal, parts.holds, 10_000)
    admitter.closed = True
    inbox = Inbox(make_entries(1))

    admitter.admit(inbox, ack)

    await settle_down()
    assert isinstance(inbox.heard[0], SpoolUnavailable)
    assert parts.channel.events == 0
    assert parts.spool.transactions == []


@pytest.mark.parametrize("ack", Ack)
async def test_a_spool_that_takes_no_events_lets_none_into_memory_either(parts: Parts, ack: Ack) -> None:
    admitter = Admitter(parts.channel, parts.journal, parts.holds, 10_000)
    parts.spool.refusal = "the file was removed"
    inbox = Inbox(make_entries(1))

    admitter.admit(inbox, ack)

    await settle_down()
    assert [str(heard) for heard in inbox.heard] == ["the file was removed"]
    assert parts.journal.failure == "the file was removed", "and it is said while nobody sends"
    assert (parts.channel.events, parts.spool.transactions) == (0, [])


async def test_groups_that_are_put_back_are_pending_or_get_a_row(parts: Parts) -> None:
    await store(parts, Inbox(make_entries(3)))
    parts.channel.add(make_parts(make_entries(2, "memory")))
    groups = parts.channel.withdraw(NOVEMBER)

    give_up(parts, groups)

    assert parts.ledger.pending_events == 3
    transaction = await parts.spool.answer()
    assert transaction == Transaction(inserts=[NewGroup(9, make_entries(2, "memory"))])
    assert parts.ledger.pending_events == parts.ledger.stored_events == 5


async def test_a_group_that_goes_its_own_way_is_in_memory_until_it_is_settled(parts: Parts) -> None:
    parts.ledger.store(2, 77)
    history = History(1, (1,), refused_status=400)
    sent = make_entries(2)
    group = parts.ledger.take_up(StoredGroup(3, NOVEMBER, sent, history, 77, 0, {sent[0]: make_entry("original")}))
    assert (group.is_alone, group.row_id, group.index, group.history) == (True, 3, NOVEMBER, history)
    assert (parts.channel.events, parts.ledger.pending_events) == (0, 0)
    waiting = asyncio.create_task(parts.ledger.wait_released([3]))

    record(parts.journal, Bulk(group.entries, [(group, group.entries)]), [RETRY, DELIVERED])

    assert (await parts.spool.answer()).shrinks == [(3, [make_entry("original")], history.tried(1000))]
    await asyncio.wait_for(waiting, 1)
    assert parts.ledger.pending_events == 1


@pytest.mark.parametrize(
    ("outcome", "is_told"),
    [(RETRY, True), (STRUCK, True), (FAULTY, False), (structs.replace(STRUCK, status=403), False), (PAUSE, False)],
)
async def test_redelivery_hears_whether_a_sink_may_take_the_rest_at_the_next_try(
    parts: Parts, outcome: Outcome, *, is_told: bool
) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, DELIVERED, outcome)
    await parts.spool.answer()
    assert parts.wake.heard == ["soon"] * is_told


@pytest.mark.parametrize("outcome", [RETRY, PAUSE, FAULTY])
async def test_events_that_become_pending_while_a_probe_is_wanted_are_it(parts: Parts, outcome: Outcome) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, outcome)
    await settle_down()
    # The back-off is over before the settlement has been written.
    parts.wake.is_sink_well = False
    parts.wake.seek_probe()
    assert (parts.wake.heard, parts.ledger.pending_events) == (["now"], 0)

    await parts.spool.answer()

    assert (parts.wake.heard, parts.ledger.pending_events) == (["now", "now"], 3)


async def test_the_rest_of_an_index_on_hold_is_not_tried_soon(parts: Parts) -> None:
    await store(parts, Inbox(make_entries(3)))
    put_on_hold(parts.holds, NOVEMBER)
    settle_bulk(parts.journal, parts.channel, DELIVERED, RETRY)
    await parts.spool.answer()
    assert parts.wake.heard == []


async def test_a_group_that_is_parted_takes_more_rows_and_all_of_it_is_pending(parts: Parts) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, RETRY, FAULTY, DELIVERED)

    transaction = await parts.spool.answer()

    assert [(group_id, len(rest)) for group_id, rest, _ in transaction.shrinks] == [(8, 1)]
    assert [(row.id, len(row.entries)) for row in transaction.inserts] == [(9, 1)]
    ledger = parts.ledger
    assert (ledger.pending_events, ledger.stored_events, ledger.loaded) == (2, 2, {})
    assert ledger.stored_bytes == sum(map(len, make_entries(2)))


async def test_a_group_that_cannot_be_parted_stays_as_it_is_and_keeps_nothing_in_memory(
    parts: Parts, clock: Clock
) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, RETRY, FAULTY)
    waiting = asyncio.create_task(parts.ledger.wait_released([8]))

    await parts.spool.answer("disk full")

    await asyncio.wait_for(waiting, 1)
    await asyncio.wait_for(parts.journal.wait_settling(), 1)
    ledger = parts.ledger
    assert (ledger.pending_events, ledger.stored_events, ledger.loaded) == (3, 3, {})
    await clock.advance(RETRY_S)
    assert parts.spool.open == [], "nothing is left to be written"
    assert not parts.journal.is_behind


async def test_a_group_that_cannot_be_parted_keeps_only_what_is_not_settled(parts: Parts, clock: Clock) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, RETRY, DELIVERED, FAULTY)
    await parts.spool.answer("disk full")

    await clock.advance(RETRY_S)

    left = make_entries(3)[::2]
    assert await parts.spool.answer() == Transaction(shrinks=[(8, left, History())])
    ledger = parts.ledger
    assert (ledger.pending_events, ledger.stored_events, ledger.loaded) == (2, 2, {})
    assert ledger.stored_bytes == sum(map(len, left))


async def test_a_batch_of_two_indices_is_told_of_all_its_rows(parts: Parts) -> None:
    put_on_hold(parts.holds, NOVEMBER)
    mixed = [*make_entries(2), *make_entries(2, month="2026-12")]
    both, free = Inbox(mixed), Inbox(make_entries(1, "free", month="2026-12"))

    await store(parts, both, free)

    assert (both.heard, free.heard) == (PENDING, CREATED)
    assert parts.channel.take().entries == [*mixed[2:], *free.entries]


async def test_events_of_an_index_on_hold_that_come_make_a_trial_due(parts: Parts) -> None:
    holds = parts.holds
    put_on_hold(holds, NOVEMBER)
    due = asyncio.create_task(holds.wait_due())
    await store(parts, Inbox(make_entries(1, month="2026-12")))
    assert not due.done()

    await store(parts, Inbox(make_entries(1)))

    assert (await asyncio.wait_for(due, 1)).index == NOVEMBER


async def test_events_of_an_index_on_hold_go_to_the_spool_and_no_further(parts: Parts) -> None:
    holds = parts.holds
    put_on_hold(holds, NOVEMBER)
    admitter = Admitter(parts.channel, parts.journal, holds, 10_000)
    held, free = Inbox(make_entries(2)), Inbox(make_entries(2, month="2026-12"))
    for inbox in (held, free):
        admitter.admit(inbox, Ack.MEMORY)
        await settle_down()

    assert free.heard == CREATED
    assert parts.channel.events == 2
    await parts.spool.answer()
    assert held.heard == PENDING
    assert parts.channel.events == 2
    assert parts.wake.heard == []
    assert parts.counters.overflowed == 0


async def test_dead_letters_take_of_the_room_of_the_spool_too(parts: Parts) -> None:
    admitter = Admitter(parts.channel, parts.journal, parts.holds, 10)
    parts.ledger.store(1, 4)
    parts.spool.dead_bytes = 5
    assert not admitter.full

    parts.spool.dead_bytes = 6
    assert admitter.full


async def test_a_spool_that_is_lost_is_written_to_no_more_and_holds_up_no_shutdown(parts: Parts) -> None:
    group = make_group(make_entries(2), 3)
    parts.ledger.store(2, 77)
    parts.ledger.add(group)
    parts.channel.offer(group)
    bulk = parts.channel.take()
    record(parts.journal, bulk, [DELIVERED] * 2)
    inbox = Inbox(make_entries(1))
    parts.journal.submit(inbox)
    await settle_down()

    _, done = parts.spool.open.pop()
    done(SpoolLost("damaged"))

    await asyncio.wait_for(parts.journal.wait_written(), 5)
    assert [type(heard) for heard in inbox.heard] == [SpoolLost]
    assert parts.spool.open == [], "nothing is tried again"
    assert parts.journal.failure == "damaged"


async def test_nobody_waits_for_an_answer_from_a_spool_that_is_lost(parts: Parts) -> None:
    group = make_group(make_entries(2), 3)
    parts.ledger.store(2, 77)
    parts.ledger.add(group)
    parts.channel.offer(group)
    record(parts.journal, parts.channel.take(), [DELIVERED] * 2)
    first, second = Inbox(make_entries(1)), Inbox(make_entries(1))
    parts.journal.submit(first)
    await parts.spool.answer("disk full")
    parts.journal.submit(second)
    await settle_down()

    # The settlements are tried without the submissions, and meanwhile the spool is lost.
    _, done = parts.spool.open.pop()
    done(SpoolLost("damaged"))
    await parts.spool.answer("damaged")

    assert [type(heard) for heard in second.heard] == [SpoolUnavailable]


async def test_settlements_are_written_though_the_events_beside_them_were_taken_back(parts: Parts) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, RETRY, FAULTY, DELIVERED)
    inbox = Inbox(make_entries(1))
    parts.journal.submit(inbox)
    await settle_down()

    transaction, done = parts.spool.open.pop()
    (shrunk, _, _), moved = transaction.shrinks[0], transaction.inserts[-1].id
    done(EventsTakenBack("removed", {shrunk: 10, moved: 20, transaction.inserts[0].id: 5}))
    await settle_down()

    assert [type(heard) for heard in inbox.heard] == [EventsTakenBack]
    assert (parts.ledger.stored_events, parts.ledger.stored_bytes) == (2, 30)
    await asyncio.wait_for(parts.journal.wait_written(), 5)


async def test_a_row_that_was_to_be_parted_when_the_spool_was_lost_does_not_go_twice(parts: Parts) -> None:
    await store(parts, Inbox(make_entries(3)))
    settle_bulk(parts.journal, parts.channel, RETRY, FAULTY, DELIVERED)
    await settle_down()

    _, done = parts.spool.open.pop()
    done(SpoolLost("damaged"))

    await asyncio.wait_for(parts.journal.wait_written(), 5)
    assert parts.channel.events == 0, "all of it is in its row"
