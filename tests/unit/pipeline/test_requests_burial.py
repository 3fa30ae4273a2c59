"""Pending events that an operator wants buried become dead letters, and no others do."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from forebay.backoff import Backoff
from forebay.clock import now_ms
from forebay.history import History
from forebay.model import DELIVERED, Entry, Outcome
from forebay.pipeline import journal
from forebay.pipeline import requests as requests_module
from forebay.pipeline.group import Group, GroupLimits
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.beside.requests import Burial, Request
from forebay.spool.loading import EVERY
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from unit.pipeline.fakes import (
    DEAD,
    FAILED,
    FAULTY,
    PAUSE,
    QUICK,
    RETRY,
    Clock,
    FakeSink,
    Inbox,
    Parts,
    assert_ledger_is_true,
    capture_log,
    commit,
    make_channel,
    make_entries,
    make_entry,
    open_spool,
    read_rows,
    until,
)

NOVEMBER, DECEMBER = "events_test_2026-11", "events_test_2026-12"
REFUSED = History(3, (1, 2, 3), refusals=1, refused_status=403)
LONG_AGO_MS = 1_000
HOUR_S = 3600.0


class Bench(Parts):
    """The parts of a pipeline on a real spool; a bulk that fails puts the sink at rest for an hour."""

    def __init__(
        self, path: Path, spool: Spool, sink: FakeSink, clock: Clock | None = None, bulk_interval_s: float = 0.01
    ) -> None:
        super().__init__(
            spool,
            sink,
            channel=make_channel(200, 100_000, 20, 10_000, bulk_interval_s=bulk_interval_s),
            limits=GroupLimits(20, 10_000),
            backoff=Backoff(HOUR_S, HOUR_S),
            holds_backoff=QUICK,
            bulk_timeout_s=0.1,
            clock=clock,
        )
        self.path = path

    async def send(self, entries: list[Entry]) -> None:
        inbox = Inbox(entries)
        self.journal.submit(inbox)
        await until(lambda: inbox.heard)

    async def bury(self, burial: Burial) -> None:
        """Ask for a burial as a command does, and wait until it is done."""
        with inspect(self.path) as inspection:
            inspection.ask(burial)
        await until(lambda: not requests(self.path))

    @contextlib.asynccontextmanager
    async def run_all(self) -> AsyncIterator[None]:
        """Let all run; at the end give up the events in memory."""
        works = (self.delivery.run(), self.redelivery.run(HOUR_S), self.trials.run(), self.requests.run())
        async with self.running(*works):
            yield
        await self.delivery.drain(0.1)
        await asyncio.wait_for(self.journal.wait_written(), 10)


@contextlib.asynccontextmanager
async def opened(
    path: Path, groups: Sequence[NewGroup] = (), outcome: Outcome | None = None, clock: Clock | None = None
) -> AsyncIterator[Bench]:
    """Own a spool in which `groups` are pending, with a sink that holds every bulk, or answers with the outcome."""
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=list(groups)))
    async with open_spool(path) as spool:
        bench = Bench(path, spool, FakeSink(outcome), clock)
        yield bench
        assert_ledger_is_true(bench.ledger, path)


@contextlib.asynccontextmanager
async def in_part(path: Path, outcomes: Sequence[Outcome] | None = None) -> AsyncIterator[Bench]:
    """Let all parts run with a full bulk on its way: all events "a", and of 15 events "b" the first five.

    The rest waits for the interval. `outcomes` are those of the five, if the bulk is to be answered already.
    """
    async with open_spool(path) as spool:
        bench = Bench(path, spool, FakeSink(None), bulk_interval_s=HOUR_S)
        async with bench.run_all():
            await bench.send(make_entries(15, "a"))
            await bench.send(make_entries(15, "b"))
            await until(lambda: bench.sink.bulks)
            if outcomes is not None:
                await bench.sink.answer(0, [*[DELIVERED] * 15, *outcomes])
                await until(lambda: len(bench.ledger.loaded) == 1)
            yield bench
        assert_ledger_is_true(bench.ledger, path)


@contextlib.asynccontextmanager
async def running(
    path: Path, groups: Sequence[NewGroup] = (), outcome: Outcome | None = None, clock: Clock | None = None
) -> AsyncIterator[Bench]:
    """Let all parts run on such a spool."""
    async with opened(path, groups, outcome, clock) as bench, bench.run_all():
        yield bench


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(requests_module, "POLL_S", 0.01)
    monkeypatch.setattr(requests_module, "LOADED_POLL_S", 0.002)
    return iter(())


def everything(**given: Any) -> Burial:
    """Return a burial of all events that are there now and that fit the arguments."""
    return Burial(now_ms() + 1, **given)


async def until_waiting(bench: Bench) -> None:
    """Wait until a burial has looked several times whether its groups have left memory."""
    looks: list[str] = []
    withdraw = bench.channel.withdraw

    def count(index: str, *, begun: bool = False) -> list[Group]:
        looks.append(index)
        return withdraw(index, begun=begun)

    with mock.patch.object(bench.channel, "withdraw", count):
        await until(lambda: len(looks) >= 3)


def requests(path: Path) -> list[str]:
    return [name for (name,) in read_rows(path, "SELECT name FROM requests")]


def dead(path: Path) -> set[str]:
    return {log_id for (log_id,) in read_rows(path, "SELECT log_id FROM dead_letters")}


def names(prefix: str, count: int) -> set[str]:
    return {f"{prefix}{number}" for number in range(count)}


async def test_buried_events_are_dead_letters_as_they_came_with_reason_and_history(path: Path) -> None:
    (entry, fresh) = make_entry("a"), make_entry("b")
    async with running(path, [NewGroup(1, [entry], REFUSED), NewGroup(2, [fresh])], FAILED) as bench:
        await bench.bury(everything())
        rows = read_rows(path, "SELECT entry, error_type, reason, attempts >= 3 FROM dead_letters ORDER BY log_id")

    assert rows == [
        (entry, "buried", "by an operator; the last refusal had the status 403", 1),
        (fresh, "buried", "by an operator", 0),
    ]


@pytest.mark.parametrize(
    ("given", "buried"),
    [
        ({}, {"nov", "dec", "refused", "x", "y"}),
        ({"index_name": DECEMBER}, {"dec"}),
        ({"index_name": NOVEMBER, "refused": True}, {"refused"}),
        ({"log_ids": frozenset({"x", "dec"})}, {"x", "dec"}),
        ({"log_ids": frozenset({"x", "dec"}), "index_name": NOVEMBER}, {"x"}),
        ({"log_ids": frozenset({"nobody"})}, set()),
    ],
)
async def test_those_that_fit_are_buried_and_the_others_stay(
    path: Path, given: dict[str, Any], buried: set[str]
) -> None:
    groups = [
        NewGroup(1, [make_entry("nov")]),
        NewGroup(2, [make_entry("dec", month="2026-12")]),
        NewGroup(3, [make_entry("refused")], REFUSED),
        NewGroup(4, [make_entry("x"), make_entry("y")]),
    ]
    # None of them is on its way to the sink: nothing but requests is carried out.
    async with opened(path, groups) as bench, bench.running(bench.requests.run()):
        await bench.bury(everything(**given))
        assert dead(path) == buried
    assert read_rows(path, "SELECT sum(events) FROM groups") == [(5 - len(buried) or None,)]


async def test_the_rest_of_a_group_keeps_its_row_and_its_history(path: Path) -> None:
    async with running(path, [NewGroup(1, make_entries(3), REFUSED)], FAILED) as bench:
        await bench.bury(everything(log_ids=frozenset({"e1"})))
    assert dead(path) == {"e1"}
    assert read_rows(path, "SELECT id, events, refused_status FROM groups") == [(1, 2, 403)]
    async with open_spool(path) as spool:
        (group,) = await spool.load(0, frozenset(), (10, 10_000), EVERY)
        assert group.entries == [make_entry("e0"), make_entry("e2")]


async def test_more_groups_than_a_bulk_takes_are_buried_in_portions(path: Path) -> None:
    groups = [NewGroup(number, make_entries(15, f"g{number}-")) for number in range(1, 41)]
    async with running(path, groups, FAILED) as bench:
        commits = bench.counters.commits
        await bench.bury(everything())
        assert bench.counters.commits - commits >= 30
    assert len(dead(path)) == 600


async def test_events_received_after_the_command_stay(path: Path) -> None:
    ahead = NewGroup(2, [make_entry("ahead")], received_at_ms=now_ms() + 3_600_000)
    async with running(path, [NewGroup(1, [make_entry("before")]), ahead], FAILED) as bench:
        burial = everything(also_ahead=True)
        await until(lambda: now_ms() > burial.received_before_ms)
        await bench.send([make_entry("after")])
        await bench.bury(burial)
        assert dead(path) == {"before", "ahead"}
    assert read_rows(path, "SELECT events FROM groups") == [(1,)]


async def test_events_that_were_received_longer_ago_are_told_from_newer_ones(path: Path) -> None:
    groups = [NewGroup(1, [make_entry("old")], received_at_ms=LONG_AGO_MS), NewGroup(2, [make_entry("new")])]
    async with running(path, groups, FAILED) as bench:
        await bench.bury(Burial(LONG_AGO_MS + 1))
        assert dead(path) == {"old"}


async def test_a_part_of_a_divided_group_is_as_old_as_the_group(path: Path) -> None:
    async with running(path, [NewGroup(1, make_entries(2), received_at_ms=LONG_AGO_MS)]) as bench:
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [Outcome(FAILED.verdict, "busy", status=status) for status in (403, 500)])
        await until(lambda: not bench.ledger.loaded)
        assert read_rows(path, "SELECT received_at_ms, events FROM groups") == [(LONG_AGO_MS, 1)] * 2


async def test_events_that_wait_in_the_channel_leave_it_for_the_grave(path: Path) -> None:
    # The bulk of one that failed puts the sink at rest for an hour; the others stay in the channel.
    async with running(path) as bench:
        await bench.send(make_entries(5, "a"))
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [FAILED] * 5)
        await bench.send(make_entries(5, "b"))
        assert bench.channel.events == 5

        await bench.bury(everything())
        assert dead(path) == names("a", 5) | names("b", 5)
        assert bench.channel.events == 0


async def test_a_group_of_which_one_event_went_as_a_probe_leaves_the_channel_too(path: Path) -> None:
    clock = Clock()
    async with running(path, clock=clock) as bench:
        await bench.send(make_entries(5, "a"))
        await until(lambda: bench.sink.bulks)
        await bench.sink.answer(0, [FAILED] * 5)
        await bench.send(make_entries(5, "b"))
        await clock.advance(HOUR_S)
        await until(lambda: len(bench.sink.bulks) == 2)
        assert len(bench.sink.bulks[1]) == 1
        await bench.sink.answer(1, [FAILED])
        assert bench.channel.events == 4

        await bench.bury(everything())
        assert dead(path) == names("a", 5) | names("b", 5)
        assert (bench.channel.events, bench.channel.entry_bytes) == (0, 0)


async def test_events_on_their_way_are_waited_for_and_those_that_are_taken_are_no_dead_letters(path: Path) -> None:
    async with running(path) as bench:
        await bench.send(make_entries(2, "taken"))
        await until(lambda: len(bench.sink.bulks) == 1)
        await bench.send(make_entries(2, "failed"))
        await until(lambda: len(bench.sink.bulks) == 2)
        burying = asyncio.create_task(bench.bury(everything()))
        await until_waiting(bench)
        assert not burying.done()

        await bench.sink.answer(0, [DELIVERED] * 2)
        await bench.sink.answer(1, [FAILED] * 2)
        await burying
        assert dead(path) == names("failed", 2)


async def test_of_a_group_that_was_taken_in_part_only_the_rest_is_buried(path: Path) -> None:
    async with in_part(path, [DELIVERED] * 5) as bench:
        assert bench.channel.events == 10
        await bench.bury(everything())
        assert dead(path) == names("b", 15) - names("b", 5)
        assert (bench.channel.events, bench.ledger.stored_events) == (0, 0)


async def test_a_part_that_is_on_its_way_is_waited_for(path: Path) -> None:
    async with in_part(path) as bench:
        burying = asyncio.create_task(bench.bury(everything()))
        await until_waiting(bench)
        assert (dead(path), bench.channel.events) == (set(), 10)

        await bench.sink.answer(0, [*[DELIVERED] * 19, FAILED])
        await burying
        assert dead(path) == names("b", 15) - names("b", 4)


async def test_what_became_of_a_part_shows_in_its_letters(path: Path) -> None:
    async with in_part(path, [DELIVERED, RETRY, FAULTY, DEAD, DELIVERED]) as bench:
        await bench.bury(everything())
        letters = read_rows(path, "SELECT error_type, reason, attempts, count(*) FROM dead_letters GROUP BY 1, 2, 3")

    assert letters == [
        ("buried", "by an operator", 0, 10),
        ("buried", "by an operator", 1, 1),
        ("buried", "by an operator; the last refusal had the status 400", 1, 1),
        ("mapper_parsing_exception", "failed to parse", 1, 1),
    ]


async def test_of_a_group_that_was_taken_in_part_those_that_are_not_meant_stay(path: Path) -> None:
    async with in_part(path, [DELIVERED] * 5) as bench:
        await bench.bury(everything(log_ids=frozenset({"a0", "b0", "b7"})))
        assert dead(path) == {"b7"}
    assert read_rows(path, "SELECT events FROM groups") == [(9,)]


@pytest.mark.parametrize("outcomes", [[DELIVERED] * 5, [DELIVERED, RETRY, FAULTY, DELIVERED, DELIVERED]])
async def test_a_part_that_was_taken_is_in_no_row_when_commits_fail(
    path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome]
) -> None:
    monkeypatch.setattr(journal, "RETRY_S", 0.01)
    unsettled = names("b", 15) - {f"b{n}" for n, outcome in enumerate(outcomes) if outcome.settled}
    async with in_part(path, outcomes) as bench:
        failures = iter([True, True])
        write = Store.write

        def fail(store: Store, transaction: Transaction) -> dict[int, int]:
            if next(failures, False):
                raise sqlite3.OperationalError("disk I/O error")
            return write(store, transaction)

        monkeypatch.setattr(Store, "write", fail)
        await bench.bury(everything())
        assert next(failures, None) is None
        assert dead(path) == unsettled
        assert bench.ledger.stored_events == 0


async def test_events_that_stay_in_memory_too_long_are_left_and_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "LOADED_S", 0.05)
    lines = capture_log(monkeypatch, requests_module)
    async with running(path) as bench:
        await bench.send([make_entry("a")])
        await until(lambda: bench.sink.bulks)
        await bench.bury(everything())
        assert dead(path) == set()
        await bench.sink.answer(0, [DELIVERED])
    assert lines == [{"event": "pending_events_buried", "events": 0, "groups_left_in_memory": 1, "log_level": "info"}]


async def test_events_of_an_index_on_hold_are_buried_and_the_hold_ends_with_them(path: Path) -> None:
    async with running(path) as bench:
        bench.sink.outcome = PAUSE
        await bench.send(make_entries(3, "a"))
        await until(lambda: bench.holds.states)
        await bench.send(make_entries(3, "b"))

        await bench.bury(everything(index_name=NOVEMBER))
        assert dead(path) == names("a", 3) | names("b", 3)
        await until(lambda: not bench.holds.states)


async def test_a_damaged_group_is_left_and_those_behind_it_are_buried(path: Path) -> None:
    groups = [NewGroup(number, [make_entry(f"e{number}")]) for number in (1, 2, 3)]
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=groups))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE groups SET codec = 9 WHERE id = 2")
    async with running(path, outcome=FAILED) as bench:
        await bench.bury(everything())
        assert dead(path) == {"e1", "e3"}


async def test_a_commit_that_fails_is_made_again_and_no_event_is_counted_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "RETRY_S", 0.01)
    async with running(path, [NewGroup(1, make_entries(3))], FAILED) as bench:
        await until(lambda: not bench.ledger.loaded)
        failures = iter([True, True, False])
        write = Store.write

        def fail(store: Store, transaction: Transaction) -> dict[int, int]:
            if len(transaction.dead) > 0 and next(failures, False):
                raise sqlite3.OperationalError("disk I/O error")
            return write(store, transaction)

        monkeypatch.setattr(Store, "write", fail)
        await bench.bury(everything())
        assert next(failures, None) is None
        assert dead(path) == names("e", 3)
        assert bench.ledger.stored_events == 0


async def test_a_burial_that_was_interrupted_goes_on_at_the_next_start(path: Path) -> None:
    async with running(path) as bench:
        await bench.send(make_entries(3))
        await until(lambda: bench.sink.bulks)
        with inspect(path) as inspection:
            inspection.ask(everything())
        # The bulk gets no answer, so the burial waits for it until the pipeline ends.
        await until_waiting(bench)
    assert dead(path) == set()
    async with running(path, outcome=FAILED):
        await until(lambda: not requests(path))
        assert dead(path) == names("e", 3)


class Refusal:
    """A spool's `refusal` that stays the same, and counts how often it is asked."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        self.asked = 0

    def __get__(self, owner: journal.Journal, kind: type[journal.Journal]) -> str:
        self.asked += 1
        return self.cause


async def test_a_burial_is_put_off_while_the_spool_takes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(path, [NewGroup(1, make_entries(3))], FAILED) as bench:
        await until(lambda: not bench.ledger.loaded)
        with monkeypatch.context() as patch:
            refusal = Refusal("the files are not there")
            patch.setattr(journal.Journal, "refusal", refusal)
            with inspect(path) as inspection:
                inspection.ask(everything())
            await until(lambda: refusal.asked >= 3)
            assert dead(path) == set()
        await until(lambda: not requests(path))
        assert dead(path) == names("e", 3)


async def test_a_retry_and_a_replay_are_done_while_a_burial_waits(path: Path) -> None:
    async with running(path) as bench:
        await bench.send(make_entries(3))
        await until(lambda: bench.sink.bulks)
        with inspect(path) as inspection:
            inspection.ask(everything())
            inspection.ask(Request.RETRY)
        await until(lambda: len(requests(path)) == 1)


async def test_buried_events_can_be_replayed_and_are_not_buried_again(path: Path) -> None:
    async with running(path, [NewGroup(1, make_entries(3))], FAILED) as bench:
        burial = everything()
        await bench.bury(burial)
        await until(lambda: now_ms() > burial.received_before_ms)
        with inspect(path) as inspection:
            assert inspection.request_replay(Choice()) == 3
            inspection.ask(Request.REPLAY)
        await until(lambda: not dead(path))
        await bench.bury(burial)
        assert dead(path) == set()
    assert read_rows(path, "SELECT sum(events) FROM groups") == [(3,)]
