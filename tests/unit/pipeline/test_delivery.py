"""Every event that a bulk took is settled on every path, and an unknown outcome counts as a retry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from forebay.history import History
from forebay.model import DELIVERED, DUPLICATE, Entry, Outcome, Verdict
from forebay.pipeline import delivery as delivery_module
from forebay.pipeline.gate import Health, Report
from forebay.pipeline.group import GroupLimits
from forebay.sinks import sifting
from forebay.spool.records import NewGroup, Transaction
from unit.pipeline.fakes import (
    DEAD,
    FAILED,
    FAULTY,
    PAUSE,
    REFUSED,
    RETRY,
    FakeCommitter,
    FakeSink,
    Inbox,
    Parts,
    capture_log,
    make_channel,
    make_entries,
    make_group,
    make_parts,
    report,
    settle_down,
    until,
)

NOT_ALLOWED = Outcome(Verdict.REFUSED, "http_403", "forbidden", whole=True, status=403)
TOO_LARGE = Outcome(Verdict.REFUSED, "http_413", "too large", whole=True, status=413, is_too_large=True)


class Bench(Parts):
    """A delivery with a channel for bulks of five events, a sink and a spool that are answered by hand."""

    spool: FakeCommitter

    def __init__(self, sink: FakeSink, in_flight_max: int = 3) -> None:
        super().__init__(
            FakeCommitter(),
            sink,
            channel=make_channel(bulk_events_max=5),
            limits=GroupLimits(100, 100_000),
            in_flight_max=in_flight_max,
        )

    async def store(self, entries: list[Entry]) -> int:
        """Put events into spool and channel, as one group; return its number."""
        inbox = Inbox(entries)
        self.journal.submit(inbox)
        transaction = await self.spool.answer()
        assert inbox.heard
        return transaction.inserts[0].id

    def remember(self, entries: list[Entry]) -> None:
        """Put events into the channel only."""
        assert self.channel.add(make_parts(entries))


@pytest.fixture
async def bench() -> Bench:
    return Bench(FakeSink(outcome=None))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    return capture_log(monkeypatch, delivery_module, sifting)


def named(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]


def only_attempts(transaction: Transaction) -> list[int]:
    """Return the rows of which a transaction notes a first attempt, and nothing else."""
    assert transaction == Transaction(attempts=transaction.attempts)
    assert all(history.attempts == len(history.attempted_at_ms) == 1 for _, history in transaction.attempts)
    return [group_id for group_id, _ in transaction.attempts]


async def test_a_delivered_bulk_is_settled(bench: Bench) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        assert bench.counters.bulks_in_flight == 1
        await bench.sink.answer(0, [DELIVERED] * 4 + [DUPLICATE])

        assert bench.sink.bulks == [make_entries(5)]
        assert (await bench.spool.answer()).deletes == [row_id]
        assert bench.counters.bulks == 1
        assert bench.counters.bulks_in_flight == 0
        assert bench.counters.outcomes == {Verdict.DELIVERED: 4, Verdict.DUPLICATE: 1}
        assert bench.ledger.stored_events == 0


async def test_bulks_are_in_flight_together_up_to_the_number_of_workers(bench: Bench) -> None:
    bench.remember(make_entries(25))
    async with bench.running(bench.delivery.run()):
        await until(lambda: len(bench.sink.bulks) == 3)
        await settle_down()
        assert len(bench.sink.bulks) == 3

        await bench.sink.answer(1, [DELIVERED] * 5)
        await until(lambda: len(bench.sink.bulks) == 4)
    assert sorted(entry for bulk in bench.sink.bulks for entry in bulk) == sorted(make_entries(20))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("no route"), TimeoutError()])
async def test_an_exception_in_the_sink_loses_nothing_and_ends_nothing(
    bench: Bench, lines: list[Any], error: Exception
) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, error)

        assert only_attempts(await bench.spool.answer()) == [row_id]
        assert bench.counters.outcomes[Verdict.RETRY] == 5
        assert bench.gate.health is Health.FAILED
        assert bench.gate.failed
        assert bench.gate.failed.error_type == type(error).__name__
        assert bench.ledger.pending_events == 5
        assert len(named(lines, "sink_failed")) == 1

        bench.remember(make_entries(5, "next"))
        await until(lambda: len(bench.sink.bulks) == 2)


@pytest.mark.parametrize("outcomes", [[], [DELIVERED] * 4, [DELIVERED] * 6, [DEAD] * 4])
async def test_another_number_of_outcomes_than_events_says_nothing_about_any(
    bench: Bench, lines: list[Any], outcomes: list[Outcome]
) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, outcomes)

        assert only_attempts(await bench.spool.answer()) == [row_id]
        assert bench.counters.outcomes[Verdict.RETRY] == 5
        assert len(named(lines, "sink_outcomes_missing")) == 1


async def test_a_cancelled_delivery_counts_as_a_retry(bench: Bench) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, asyncio.CancelledError())

        assert only_attempts(await bench.spool.answer()) == [row_id]
        assert bench.counters.bulks_in_flight == 0
        assert bench.gate.health is Health.FAILED


async def test_a_bulk_of_which_a_part_was_taken_shows_a_sink_that_is_well(bench: Bench) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [DELIVERED, RETRY, DELIVERED, DELIVERED, DELIVERED])

        ((shrunk_id, rest, history),) = (await bench.spool.answer()).shrinks
        assert (shrunk_id, rest, history.attempts) == (row_id, make_entries(5)[1:2], 1)
        assert bench.gate.health is Health.GOOD
        assert bench.wake.heard == ["soon"]


@pytest.mark.parametrize(
    "outcomes",
    [[DELIVERED] * 5, [FAILED] * 5, [REFUSED] * 5, [PAUSE] * 5, [DELIVERED, PAUSE, DELIVERED, DELIVERED, DEAD]],
)
async def test_nothing_is_tried_soon_if_that_would_not_help(bench: Bench, outcomes: list[Outcome]) -> None:
    bench.remember(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, outcomes)
        await bench.spool.answer_all()

    assert "soon" not in bench.wake.heard


async def test_dead_letters_are_logged_once_for_a_bulk(bench: Bench, lines: list[Any]) -> None:
    bench.remember(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [DEAD, DELIVERED, DEAD, DEAD, DELIVERED])

    (line,) = named(lines, "dead_letters")
    assert (line["events"], line["first_type"], line["first_reason"]) == (3, DEAD.error_type, DEAD.reason)
    assert line["log_level"] == "warning"
    transaction = await bench.spool.answer()
    assert [letter.entry for letter in transaction.dead] == [make_entries(5)[number] for number in (0, 2, 3)]


async def test_a_sink_that_stays_unwell_is_logged_once(lines: list[Any]) -> None:
    sink = FakeSink(FAILED)
    bench = Bench(sink)
    bench.remember(make_entries(20))
    async with bench.running(bench.delivery.run()):
        await until(lambda: len(sink.bulks) >= 4)
        await until(lambda: bench.counters.bulks >= 4)

    assert len(named(lines, "sink_unwell")) == 1
    assert named(lines, "sink_unwell")[0]["cause"] == "unreachable: no answer in time"


async def test_draining_delivers_the_channel() -> None:
    sink = FakeSink(DELIVERED)
    bench = Bench(sink)
    row_id = await bench.store(make_entries(12))
    bench.remember(make_entries(3, "memory"))

    await bench.delivery.drain(5)

    assert [len(bulk) for bulk in sink.bulks] == [5, 5, 5]
    assert (await bench.spool.answer()) == Transaction(deletes=[row_id])
    assert bench.channel.events == 0


async def test_draining_waits_for_bulks_that_are_under_way(bench: Bench) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
    draining = asyncio.create_task(bench.delivery.drain(5))
    await settle_down()
    assert not draining.done()

    await bench.sink.answer(0, [DELIVERED] * 5)
    await asyncio.wait_for(draining, 1)
    assert (await bench.spool.answer()) == Transaction(deletes=[row_id])


@pytest.mark.parametrize("timeout_s", [-1, 0, 0.02])
async def test_at_the_deadline_everything_is_given_up_and_nothing_lost(
    bench: Bench, lines: list[Any], timeout_s: float
) -> None:
    row_id = await bench.store(make_entries(8, "stored"))
    bench.remember(make_entries(9, "memory"))
    bench.remember(make_entries(5, "behind"))

    await asyncio.wait_for(bench.delivery.drain(timeout_s), 2)
    written = await bench.spool.answer_all()

    # The first three bulks were under way, and their outcomes are unknown.
    assert not any((written.deletes, written.shrinks, written.dead))
    kept = [entry for group in written.inserts if group.id != row_id for entry in group.entries]
    assert sorted(kept) == sorted([*make_entries(9, "memory"), *make_entries(5, "behind")])
    assert [group_id for group_id, _ in written.attempts] in ([row_id], [])
    assert len(named(lines, "shutdown_timeout")) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert bench.counters.bulks_in_flight == 0


async def test_at_the_deadline_known_outcomes_stay_known(bench: Bench) -> None:
    bench.remember(make_entries(12, "memory"))
    draining = asyncio.create_task(bench.delivery.drain(0.05))
    await until(lambda: len(bench.sink.bulks) == 3)
    await bench.sink.answer(0, [DELIVERED, DELIVERED, RETRY, DEAD, DELIVERED])

    await asyncio.wait_for(draining, 2)
    written = await bench.spool.answer_all()

    assert [letter.entry for letter in written.dead] == [make_entries(12, "memory")[3]]
    kept = [entry for group in written.inserts for entry in group.entries]
    assert sorted(kept) == sorted([make_entries(12, "memory")[2], *make_entries(12, "memory")[5:]])


async def test_a_sink_that_is_down_is_not_waited_for() -> None:
    bench = Bench(FakeSink(PAUSE))
    row_id = await bench.store(make_entries(10))
    bench.remember(make_entries(3, "memory"))
    bench.gate.leave(await bench.gate.enter(), Report(Health.PAUSED, failed=PAUSE), 0.02)

    await asyncio.wait_for(bench.delivery.drain(60), 1)

    assert bench.sink.bulks == []
    transaction = await bench.spool.answer()
    assert transaction == Transaction(inserts=[NewGroup(row_id + 1, make_entries(3, "memory"))])


async def test_a_row_that_is_given_up_keeps_no_event_that_was_taken(bench: Bench) -> None:
    entries = make_entries(8)
    row_id = await bench.store(entries)
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [DELIVERED] * 5)
    bench.gate.leave(await bench.gate.enter(), Report(Health.PAUSED, failed=PAUSE), 0.02)

    await asyncio.wait_for(bench.delivery.drain(60), 1)

    assert await bench.spool.answer() == Transaction(shrinks=[(row_id, entries[5:], History())])


async def test_a_sink_that_fails_while_draining_ends_it_before_the_deadline() -> None:
    bench = Bench(FakeSink(RETRY), in_flight_max=1)
    bench.remember(make_entries(5, "a"))
    bench.remember(make_entries(5, "b"))
    bench.remember(make_entries(5, "c"))

    await asyncio.wait_for(bench.delivery.drain(60), 2)
    written = await bench.spool.answer_all()

    kept = [entry for group in written.inserts for entry in group.entries]
    assert sorted(kept) == sorted([entry for prefix in "abc" for entry in make_entries(5, prefix)])


async def test_draining_nothing_writes_nothing(bench: Bench) -> None:
    await asyncio.wait_for(bench.delivery.drain(5), 1)
    await settle_down()

    assert bench.spool.transactions == []


async def test_a_bulk_with_an_answer_that_nobody_expects_is_counted_and_logged(bench: Bench, lines: list[Any]) -> None:
    strange = Outcome(Verdict.RETRY, "unexpected_answer", "status 418: short and stout", is_unexpected=True)
    bench.remember(make_entries(10))
    async with bench.running(bench.delivery.run()):
        await until(lambda: len(bench.sink.bulks) == 2)
        await bench.sink.answer(0, [DELIVERED, strange, strange, DELIVERED, DELIVERED])
        await bench.sink.answer(1, [DELIVERED] * 5)

    assert bench.counters.unexpected_answers == 1
    (line,) = named(lines, "sink_answer_unexpected")
    assert (line["reason"], line["events"]) == ("status 418: short and stout", 2)


async def test_events_that_are_refused_for_their_index_close_nothing(bench: Bench) -> None:
    bench.remember(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [PAUSE] * 5)

    assert bench.gate.health is Health.GOOD
    assert bench.holds


async def test_a_bulk_that_is_withdrawn_while_it_waits_for_the_gate_is_not_sent_empty() -> None:
    bench = Bench(FakeSink(outcome=None), in_flight_max=1)
    bench.remember(make_entries(10))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await settle_down()
        bench.channel.take()
        await bench.sink.answer(0, [DELIVERED] * 5)
        assert bench.sink.bulks == [make_entries(10)[:5]]

        bench.remember(make_entries(5, "next"))
        await until(lambda: len(bench.sink.bulks) == 2)


async def test_a_group_delivered_alone_says_nothing_to_the_gate() -> None:
    bench = Bench(FakeSink(FAILED))
    row_id = await bench.store(make_entries(3))
    bench.channel.drain()
    group = bench.ledger.loaded[row_id]

    assert await bench.delivery.deliver_alone([group]) == [FAILED] * 3

    assert bench.gate.health is Health.GOOD
    assert bench.sink.bulks == [make_entries(3)]
    failures = bench.evidence.failures
    assert (failures.taken, failures.failed) == (0, 0)


async def test_an_event_taken_of_a_group_delivered_alone_shows_that_the_sink_is_back() -> None:
    bench = Bench(FakeSink(DELIVERED))
    row_id = await bench.store(make_entries(3))
    bench.channel.drain()
    bench.gate.leave(await bench.gate.enter(), report([FAILED]), 0.02)

    await bench.delivery.deliver_alone([bench.ledger.loaded[row_id]])

    assert bench.gate.health is Health.GOOD


@pytest.mark.parametrize(
    ("outcome", "taken", "failed"),
    [(FAILED, 0, 1), (DELIVERED, 1, 0), (DEAD, 1, 0), (RETRY, 0, 0), (PAUSE, 0, 0), (FAULTY, 0, 0)],
)
async def test_how_bulks_end_is_remembered_for_those_that_are_doubted(
    bench: Bench, outcome: Outcome, taken: int, failed: int
) -> None:
    bench.remember(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [outcome] * 5)
    failures = bench.evidence.failures
    assert (failures.taken, failures.failed) == (taken, failed)


async def test_a_refusal_beside_others_that_are_taken_is_the_events_own_and_soon_tried_again(bench: Bench) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [DELIVERED, FAULTY, DELIVERED, DELIVERED, DELIVERED])

        ((shrunk_id, rest, history),) = (await bench.spool.answer()).shrinks
    assert (shrunk_id, rest) == (row_id, make_entries(5)[1:2])
    assert (history.refusals, history.refused_status) == (1, 400)
    assert bench.wake.heard == ["soon"]
    assert not bench.holds


async def test_a_refusal_of_everything_is_nobodys_own_and_holds_the_index(bench: Bench) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [FAULTY] * 5)

        ((group_id, history),) = (await bench.spool.answer()).attempts
    assert (group_id, history.refusals, history.refused_status) == (row_id, 0, 400)
    assert bench.wake.heard == []
    assert bench.holds.indices == {"events_test_2026-11"}
    assert bench.gate.health is Health.GOOD


async def test_an_event_that_is_refused_a_second_time_while_others_are_taken_dies(
    bench: Bench, lines: list[Any]
) -> None:
    history = History(1, (1,), refusals=1, refused_status=400)
    groups = [make_group(make_entries(1, "bad"), 7, history), make_group(make_entries(4, "good"), 8)]
    for group in groups:
        bench.ledger.store(len(group.entries), group.entry_bytes)
        bench.ledger.add(group)
        bench.channel.offer(group)
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [FAULTY, *[DELIVERED] * 4])

        transaction = await bench.spool.answer()
    assert sorted(transaction.deletes) == [7, 8]
    assert [letter.entry for letter in transaction.dead] == make_entries(1, "bad")
    assert bench.counters.outcomes == {Verdict.DELIVERED: 4, Verdict.DEAD: 1}
    assert len(named(lines, "dead_letters")) == 1


async def test_an_event_that_was_never_refused_goes_to_see_if_the_sink_is_back() -> None:
    bench = Bench(FakeSink(DELIVERED))
    bench.channel.offer(make_group(make_entries(3, "old"), 7, History(1, (1,), refused_status=401)))
    bench.channel.offer(make_group(make_entries(2, "new"), 8))
    bench.gate.leave(await bench.gate.enter(), report([FAILED]), 0.02)
    bench.channel.flush()
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)

    assert bench.sink.bulks[0] == make_entries(1, "new")


async def test_the_one_that_goes_alone_of_a_refused_bulk_was_never_refused_before(bench: Bench) -> None:
    bench.channel.offer(make_group(make_entries(3, "old"), 7, History(1, (1,), refused_status=403)))
    bench.channel.offer(make_group(make_entries(2, "new"), 8))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [NOT_ALLOWED] * 5)
        await until(lambda: len(bench.sink.bulks) == 2)

    assert bench.sink.bulks[1] == make_entries(1, "new")


async def test_a_refusal_of_requests_closes_the_gate_and_strikes_nobody(bench: Bench) -> None:
    row_id = await bench.store(make_entries(5))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [NOT_ALLOWED] * 5)
        await bench.sink.answer(1, [NOT_ALLOWED])

        transaction = await bench.spool.answer()
    assert bench.gate.health is Health.PAUSED
    assert not bench.holds
    assert transaction.dead == []
    histories = [row.history for row in transaction.inserts] + [history for *_, history in transaction.shrinks]
    assert [(history.refusals, history.refused_status) for history in histories] == [(0, 0), (0, 403)]
    assert [group_id for group_id, *_ in transaction.shrinks] == [row_id]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_request_refused_for_its_one_event_as_before_leaves_the_gate_as_it_is(*, is_closed: bool) -> None:
    bench = Bench(FakeSink(NOT_ALLOWED))
    history = History(3, (1,), refusals=1, refused_status=NOT_ALLOWED.status)
    bench.channel.offer(make_group(make_entries(1, "odd"), 7, history))
    if is_closed:
        bench.gate.leave(await bench.gate.enter(), report([FAILED]), 0.02)
    before = bench.gate.health
    bench.channel.flush()
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.spool.answer()

    assert bench.gate.health is before
    assert bench.gate.in_flight_max == (1 if is_closed else 3)


async def test_after_a_bulk_that_was_too_large_smaller_ones_are_cut(bench: Bench) -> None:
    bench.remember(make_entries(5, "a", size=100))
    async with bench.running(bench.delivery.run()):
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [TOO_LARGE] * 5)
        for number, events in ((1, 2), (2, 3)):
            await bench.sink.answer(number, [DELIVERED] * events)
        bench.remember(make_entries(5, "b", size=100))
        bench.channel.flush()
        await until(lambda: len(bench.sink.bulks) > 3)

    assert bench.sink.bulks[3] == make_entries(5, "b", size=100)[:4]
    assert bench.counters.outcomes[Verdict.DELIVERED] == 5
