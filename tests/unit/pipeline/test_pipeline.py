"""The parts together on a real spool: events that have to wait wait, poison is found, and everything else flows."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from forebay.history import History
from forebay.model import DELIVERED, DUPLICATE, Ack, Entry, Outcome, Verdict
from forebay.pipeline import requests, separate_bulks, wake
from forebay.pipeline.evidence import REFUSALS_MAX_OF_OTHERS
from forebay.pipeline.gate import Health
from forebay.pipeline.holds import FRESH_TRIALS_MAX
from forebay.pipeline.pipeline import Pipeline
from forebay.settings import Settings
from forebay.sinks.opensearch.answers import read_answer
from forebay.spool.beside.inspection import inspect
from forebay.spool.beside.requests import Request
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from forebay.telemetry.counters import Counters
from unit.pipeline.fakes import (
    FAILED,
    FAULTY,
    PAUSE,
    REFUSED,
    TINY,
    Inbox,
    assert_state_is_true,
    commit,
    make_entries,
    make_entry,
    open_spool,
    read_rows,
    settle_down,
    until,
)

IMPATIENT = TINY.model_copy(update={"retry_delay_s_max": 0.01})
"""So that a sink which fails is asked often."""

DECEMBER = "2026-12"
FAULTY_ID = b'"faulty'
UNASSIGNED = read_answer(
    200,
    b'{"items":[{"create":{"status":503,"error":'
    b'{"type":"unavailable_shards_exception","reason":"primary shard is not active"}}}]}',
    1,
)[0]
WALL = Outcome(Verdict.REFUSED, "http_400", "your request was blocked", whole=True, status=400)


class PickySink:
    """A sink that answers each event by a rule, and counts.

    Attributes:
        rule: its answer for an event; None for one that it takes.
        blocks: whether a bulk with this event gets no answer at all.
        held: the events that it holds.
        asked: how often it was asked for an event.
    """

    def __init__(self) -> None:
        self.rule: Callable[[Entry], Outcome | None] = lambda _: None
        self.blocks: Callable[[Entry], bool] = lambda _: False
        self.held: dict[Entry, None] = {}
        self.asked: Counter[Entry] = Counter()
        self.bulks: list[list[Entry]] = []

    def expect(self, index: str) -> None:
        """Do nothing."""

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        self.bulks.append(entries)
        self.asked.update(entries)
        await asyncio.sleep(0.001)
        if any(map(self.blocks, entries)):
            return [FAILED] * len(entries)
        return [self._answer(entry) for entry in entries]

    def repair(self, entry: Entry) -> Entry:
        return entry

    def _answer(self, entry: Entry) -> Outcome:
        refusal = self.rule(entry)
        if refusal is not None:
            return refusal
        if entry in self.held:
            return DUPLICATE
        self.held[entry] = None
        return DELIVERED


class Bench:
    """A pipeline that runs."""

    def __init__(self, spool: Spool, sink: PickySink, settings: Settings = TINY) -> None:
        self.sink = sink
        self.counters = Counters()
        self.pipeline = Pipeline(spool, sink, settings, self.counters)

    def send(self, entries: list[Entry], ack: Ack = Ack.DISK) -> Inbox:
        inbox = Inbox(entries)
        self.pipeline.admitter.admit(inbox, ack)
        return inbox

    async def trickle(self, done: Callable[[], object]) -> None:
        """Send an event now and then, until something has come about."""
        number = 0
        async with asyncio.timeout(15):
            while not done():
                number += 1
                self.send(make_entries(1, f"trickle{number}-"))
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(path: Path, sink: PickySink, settings: Settings = TINY) -> AsyncIterator[Bench]:
    async with open_spool(path, sink.repair) as spool:
        bench = Bench(spool, sink, settings)
        task = asyncio.create_task(bench.pipeline.run())
        try:
            yield bench
            assert not task.done(), "it ended"
        finally:
            await asyncio.wait_for(bench.pipeline.stop(task, 5), 10)
            await settle_down()
        assert_state_is_true(bench.pipeline.state, path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(requests, "POLL_S", 0.01)
    monkeypatch.setattr(separate_bulks, "POLL_S", 0.002)
    monkeypatch.setattr(wake, "SOON_S", 0.02)
    return iter(())


def is_december(entry: Entry) -> bool:
    return b"2026-12" in entry


def block_december(entry: Entry) -> Outcome | None:
    return PAUSE if is_december(entry) else None


def dead(path: Path) -> list[tuple[str, str, str]]:
    return read_rows(path, "SELECT log_id, error_type, reason FROM dead_letters")


@pytest.mark.parametrize("ack", list(Ack))
async def test_a_blocked_index_waits_and_its_neighbours_flow(path: Path, ack: Ack) -> None:
    sink = PickySink()
    sink.rule = block_december
    blocked = [make_entries(10, f"d{number}-", month=DECEMBER) for number in range(30)]
    free = [make_entries(10, f"n{number}-") for number in range(60)]
    async with running(path, sink) as bench:
        for number, entries in enumerate(free):
            bench.send(entries, ack)
            if number < len(blocked):
                bench.send(blocked[number], ack)
            await asyncio.sleep(0.004)
        await until(lambda: len(sink.held) == 600)

        state = bench.pipeline.state
        assert state.sink_health is Health.GOOD
        assert [hold.index_name for hold in state.holds] == ["events_test_2026-12"]
        await until(lambda: bench.pipeline.state.pending_events == 300)
        assert dead(path) == []

        sink.rule = lambda _: None
        await until(lambda: len(sink.held) == 900)
        await until(lambda: not bench.pipeline.state.holds)
    assert read_rows(path, "SELECT 1 FROM groups") == []
    assert set(sink.held) == {entry for entries in blocked + free for entry in entries}


async def test_a_blocked_index_is_tried_as_seldom_as_the_back_off_says_but_for_a_few_times(path: Path) -> None:
    sink = PickySink()
    sink.rule = block_december
    settings = TINY.model_copy(update={"retry_delay_s_min": 0.2, "retry_delay_s_max": 0.2})
    async with running(path, sink, settings) as bench:
        bench.send(make_entries(10, "first", month=DECEMBER))
        await until(lambda: bench.pipeline.state.holds)
        asked, began_at = len(sink.bulks), asyncio.get_running_loop().time()
        for number in range(50):
            bench.send(make_entries(10, f"d{number}-", month=DECEMBER))
            with inspect(path) as inspection:
                inspection.ask(Request.RETRY)
            await asyncio.sleep(0.01)
        back_offs = (asyncio.get_running_loop().time() - began_at) / 0.1
        assert 1 <= len(sink.bulks) - asked <= back_offs + 1 + FRESH_TRIALS_MAX
        await until(lambda: bench.pipeline.state.stored_events == 510)


async def test_events_in_the_channel_leave_it_when_their_index_is_blocked(path: Path) -> None:
    sink = PickySink()
    sink.rule = block_december
    settings = TINY.model_copy(update={"bulk_workers": 1, "retry_delay_s_min": 30, "retry_delay_s_max": 30})
    async with running(path, sink, settings) as bench:
        for number in range(20):
            bench.send(make_entries(9, f"d{number}-", month=DECEMBER), Ack.MEMORY)
        await until(lambda: bench.pipeline.state.holds)
        await until(lambda: bench.pipeline.state.pending_events == 180)
        assert bench.pipeline.state.channel_events == 0
        assert len(sink.bulks) <= 3


async def test_a_group_that_holds_events_of_a_blocked_index_too_is_delivered_as_far_as_it_can_be(path: Path) -> None:
    sink = PickySink()
    sink.rule = block_december
    async with running(path, sink) as bench:
        bench.send(make_entries(5, "d", month=DECEMBER))
        await until(lambda: bench.pipeline.state.holds)
        mixed = [*make_entries(3, "n"), *make_entries(3, "x", month=DECEMBER)]
        bench.send(mixed)
        await until(lambda: len(sink.held) == 3)
        await until(lambda: bench.pipeline.state.pending_events == 8)
        sink.rule = lambda _: None
        await until(lambda: len(sink.held) == 11)


async def test_a_refusal_of_everything_closes_the_gate_and_comes_with_advice(path: Path) -> None:
    sink = PickySink()
    sink.rule = lambda _: REFUSED
    async with running(path, sink) as bench:
        bench.send(make_entries(5))
        await until(lambda: bench.pipeline.state.sink_health is Health.PAUSED)
        state = bench.pipeline.state
        assert (state.sink_error_type, state.sink_advice) == ("security_exception", "look at the role")
        assert state.holds == ()
        sink.rule = lambda _: None
        await until(lambda: len(sink.held) == 5)
        assert bench.pipeline.state.sink_health is Health.GOOD
        assert bench.pipeline.state.sink_advice == ""


async def test_a_sink_that_is_back_is_found_without_new_events(path: Path) -> None:
    sink = PickySink()
    sink.rule = lambda _: FAILED
    settings = TINY.model_copy(update={"retry_interval_s": 3600})
    async with running(path, sink, settings) as bench:
        bench.send(make_entries(20))
        await until(lambda: bench.pipeline.state.sink_health is Health.FAILED)
        await until(lambda: bench.pipeline.state.channel_events == 0)
        sink.rule = lambda _: None
        await until(lambda: len(sink.held) == 20)


async def test_while_the_sink_is_down_single_events_go_to_see(path: Path) -> None:
    sink = PickySink()
    sink.rule = lambda _: FAILED
    async with running(path, sink) as bench:
        bench.send(make_entries(20))
        await until(lambda: len(sink.bulks) >= 4)
    assert {len(bulk) for bulk in sink.bulks[1:]} == {1}


async def test_a_sink_that_is_down_makes_no_strike_and_no_dead_letter(path: Path) -> None:
    sink = PickySink()
    sink.rule = lambda _: FAILED
    async with running(path, sink, IMPATIENT) as bench:
        for number in range(10):
            bench.send(make_entries(2, f"e{number}-"))
            await until(lambda number=number: len(sink.bulks) > number)  # type: ignore[misc]
        await until(lambda: len(sink.bulks) > 30)
    assert read_rows(path, "SELECT sum(strikes) FROM groups") == [(0,)]
    assert dead(path) == []


async def test_an_event_that_blocks_every_bulk_becomes_a_dead_letter_and_all_others_arrive(path: Path) -> None:
    sink = PickySink()
    poison = make_entry("poison")
    sink.blocks = poison.__eq__
    innocent = make_entries(39)
    async with running(path, sink) as bench:
        bench.send([*innocent[:7], poison, *innocent[7:20]])
        bench.send(innocent[20:])
        await bench.trickle(lambda: dead(path))
        await until(lambda: set(innocent) <= sink.held.keys())

        ((log_id, error_type, reason),) = dead(path)
        assert (log_id, error_type) == ("poison", "poison")
        assert reason == (
            "3 deliveries ended without an answer while others were taken: unreachable: no answer in time"
        )
        assert sink.asked[poison] < 60, "it is not tried in a tight circle"
    assert read_rows(path, "SELECT 1 FROM groups") == []
    assert read_rows(path, "SELECT entry FROM dead_letters") == [(poison,)]


async def test_several_of_them_are_all_found(path: Path) -> None:
    sink = PickySink()
    sink.blocks = lambda entry: b"poison" in entry
    entries = [make_entry(f"{'poison' if number % 7 == 3 else 'good'}{number}") for number in range(40)]
    async with running(path, sink) as bench:
        for entry in entries:
            bench.send([entry])
            await asyncio.sleep(0.002)
        await bench.trickle(lambda: len(dead(path)) == 6)
        await until(lambda: {entry for entry in entries if b"good" in entry} <= sink.held.keys())
    assert {log_id for log_id, _, _ in dead(path)} == {f"poison{number}" for number in range(3, 40, 7)}


async def test_a_replayed_poison_is_tried_anew(path: Path) -> None:
    sink = PickySink()
    entry = make_entry("poison")
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, [entry], History(6, (1,), strikes=6))]))
    async with running(path, sink) as bench:
        await bench.trickle(lambda: dead(path))
        assert sink.asked[entry] == 0
        assert dead(path)[0][2] == ("3 deliveries ended without an answer while others were taken: in an earlier run")


async def test_a_suspect_that_takes_all_the_time_there_is_holds_up_nobody(path: Path) -> None:
    sink = PickySink()
    slow = make_entry("slow")
    forever = asyncio.Event()
    deliver = sink.deliver

    async def deliver_slowly(entries: list[Entry]) -> list[Outcome]:
        if slow in entries:
            assert entries == [slow], "it travels alone"
            sink.asked[slow] += 1
            await forever.wait()
        return await deliver(entries)

    sink.deliver = deliver_slowly  # type: ignore[method-assign]
    settings = TINY.model_copy(update={"bulk_workers": 1})
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, [slow], History(3, (1,), strikes=3))]))
    async with running(path, sink, settings) as bench:
        await bench.trickle(lambda: sink.asked[slow])
        bench.send(make_entries(100, "after"))
        await until(lambda: set(make_entries(100, "after")) <= sink.held.keys())
        forever.set()
        await until(lambda: slow in sink.held)


async def test_a_suspect_alone_in_the_world_is_delivered_too(path: Path) -> None:
    sink = PickySink()
    suspect = make_entry("suspect")
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, [suspect], History(3, (1,), strikes=3))]))
    async with running(path, sink):
        await until(lambda: suspect in sink.held)


async def test_suspects_alone_find_that_a_sink_is_back(path: Path) -> None:
    sink = PickySink()
    sink.rule = lambda _: FAILED
    suspect = make_entry("suspect")
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, [suspect], History(3, (1,), strikes=3))]))
    async with running(path, sink) as bench:
        bench.send([make_entry("usual")])
        await until(lambda: bench.pipeline.state.sink_health is Health.FAILED)
        sink.rule = lambda entry: None if entry == suspect else FAILED
        await until(lambda: suspect in sink.held)


async def test_a_suspect_of_a_blocked_index_waits_with_it(path: Path) -> None:
    sink = PickySink()
    sink.rule = block_december
    suspect = make_entry("suspect", month=DECEMBER)
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=[NewGroup(1, [suspect], History(3, (1,), strikes=3))]))
    async with running(path, sink) as bench:
        await until(lambda: bench.pipeline.state.holds)
        sink.rule = lambda _: None
        await bench.trickle(lambda: suspect in sink.held)
    assert dead(path) == []


def refuse_faulty(entry: Entry) -> Outcome | None:
    return FAULTY if FAULTY_ID in entry else None


async def test_an_event_that_is_refused_while_its_neighbours_are_taken_dies_at_its_second_delivery(path: Path) -> None:
    sink = PickySink()
    sink.rule = refuse_faulty
    faulty, good = make_entry("faulty"), make_entries(19)
    settings = TINY.model_copy(update={"retry_interval_s": 3600})
    async with running(path, sink, settings) as bench:
        bench.send([*good, faulty])
        await until(lambda: set(good) <= sink.held.keys())
        await bench.trickle(lambda: dead(path))
        assert bench.pipeline.state.holds == ()
        assert sink.asked[faulty] == 2
    assert dead(path) == [("faulty", FAULTY.error_type, FAULTY.reason)]


@pytest.mark.parametrize("ack", list(Ack))
async def test_an_index_of_which_everything_is_refused_waits_whatever_the_status_and_nothing_of_it_dies(
    path: Path, ack: Ack
) -> None:
    sink = PickySink()
    sink.rule = lambda entry: FAULTY if is_december(entry) else None
    blocked = [make_entries(10, f"d{number}-", month=DECEMBER) for number in range(5)]
    async with running(path, sink) as bench:
        for entries in blocked:
            bench.send(entries, ack)
        await bench.trickle(lambda: bench.pipeline.state.holds)
        await bench.trickle(lambda: len(sink.bulks) > 40)
        assert bench.pipeline.state.sink_health is Health.GOOD
        statement = "SELECT max(refusals), sum(events) FROM groups WHERE index_name = 'events_test_2026-12'"
        assert read_rows(path, statement) == [(0, 50)]
        assert dead(path) == []

        sink.rule = lambda _: None
        await until(lambda: not bench.pipeline.state.holds)
        await until(lambda: {entry for entries in blocked for entry in entries} <= sink.held.keys())
    assert read_rows(path, "SELECT 1 FROM groups") == []


async def test_a_faulty_event_alone_in_its_index_waits_until_another_is_taken(path: Path) -> None:
    sink = PickySink()
    sink.rule = refuse_faulty
    faulty = make_entry("faulty", month=DECEMBER)
    async with running(path, sink) as bench:
        bench.send([faulty])
        await bench.trickle(lambda: sink.asked[faulty] > 3)
        assert dead(path) == []
        assert bench.pipeline.state.holds == (), "one event alone is not told as an index"

        bench.send(make_entries(1, "good", month=DECEMBER))
        await until(lambda: len(sink.held) and make_entry("good0", month=DECEMBER) in sink.held)
        for number in range(200):
            if dead(path):
                break
            bench.send(make_entries(1, f"more{number}-", month=DECEMBER))
            await asyncio.sleep(0.01)
    assert [log_id for log_id, _, _ in dead(path)] == ["faulty"]


async def test_an_index_whose_shard_is_nowhere_holds_up_no_other_however_many_of_its_events_wait(path: Path) -> None:
    sink = PickySink()
    red = set(make_entries(600, "red"))
    sink.rule = lambda entry: UNASSIGNED if entry in red else None
    async with running(path, sink, IMPATIENT) as bench:
        for start in range(0, 600, 20):
            bench.send(make_entries(600, "red")[start : start + 20])
        await until(lambda: len(sink.bulks) > 20)
        good = make_entries(250, "good", month=DECEMBER)
        for number, entry in enumerate(good):
            bench.send([entry])
            await until(lambda number=number: len(sink.held) > number)  # type: ignore[misc]
        assert bench.pipeline.state.sink_health is Health.GOOD
        assert [hold.error_type for hold in bench.pipeline.state.holds] == ["unavailable_shards_exception"]
        assert dead(path) == []
        red.clear()
        await until(lambda: len(sink.held) == 850)
    assert bench.pipeline.state.holds == ()


async def test_events_of_a_shard_that_is_nowhere_never_die_though_others_of_their_index_are_taken(path: Path) -> None:
    sink = PickySink()
    red = set(make_entries(20, "red"))
    sink.rule = lambda entry: UNASSIGNED if entry in red else None
    async with running(path, sink, IMPATIENT) as bench:
        bench.send(make_entries(20, "red"))
        await bench.trickle(lambda: min(sink.asked[entry] for entry in red) > 3 * REFUSALS_MAX_OF_OTHERS)
        assert dead(path) == []
        red.clear()
        await until(lambda: set(make_entries(20, "red")) <= sink.held.keys())


async def test_a_firewall_that_refuses_requests_for_one_event_costs_no_other(path: Path) -> None:
    sink = PickySink()
    walled = make_entry("walled")
    deliver = sink.deliver

    async def refuse(entries: list[Entry]) -> list[Outcome]:
        outcomes = await deliver([entry for entry in entries if entry != walled])
        if walled in entries:
            for entry in entries:
                sink.held.pop(entry, None)
            return [WALL] * len(entries)
        return outcomes

    sink.deliver = refuse  # type: ignore[method-assign]
    good = make_entries(39)
    async with running(path, sink) as bench:
        bench.send([*good[:7], walled, *good[7:19]])
        bench.send(good[19:])
        await bench.trickle(lambda: set(good) <= sink.held.keys())
        await bench.trickle(lambda: dead(path))
        assert bench.pipeline.state.sink_health is Health.GOOD
    assert [log_id for log_id, _, _ in dead(path)] == ["walled"]


async def test_a_refusal_of_all_requests_kills_nobody_and_everything_arrives_later(path: Path) -> None:
    sink = PickySink()
    sink.rule = lambda _: WALL
    async with running(path, sink, IMPATIENT) as bench:
        for number in range(10):
            bench.send(make_entries(10, f"e{number}-"))
            await until(lambda number=number: len(sink.bulks) > number)  # type: ignore[misc]
        await until(lambda: len(sink.bulks) > 20)
        assert bench.pipeline.state.sink_health is Health.PAUSED
        assert bench.pipeline.state.holds == ()
        sink.rule = lambda _: None
        await until(lambda: len(sink.held) == 100)
    assert dead(path) == []
    assert read_rows(path, "SELECT 1 FROM groups") == []


async def test_a_status_that_may_pass_kills_only_after_ten_rounds(path: Path) -> None:
    sink = PickySink()
    odd = make_entry("faulty")
    sink.rule = lambda entry: structs.replace(FAULTY, status=403) if entry == odd else None
    interval_s = 0.03
    async with running(path, sink, TINY.model_copy(update={"retry_interval_s": interval_s})) as bench:
        began_at = asyncio.get_running_loop().time()
        bench.send([odd, *make_entries(3)])
        await bench.trickle(lambda: dead(path))
        assert asyncio.get_running_loop().time() - began_at >= 9 * interval_s, "each refusal counts in another round"
        assert sink.asked[odd] >= 10
    ((attempts,),) = read_rows(path, "SELECT attempts FROM dead_letters")
    assert attempts >= 10


async def test_an_event_that_was_refused_is_sent_in_another_form_and_dies_as_it_came(path: Path) -> None:
    sink = PickySink()
    sink.repair = lambda entry: entry.replace(b'{"x":""}', b'{"x":"repaired"}')  # type: ignore[method-assign]
    sink.rule = lambda entry: FAULTY if FAULTY_ID in entry or (b"odd" in entry and b"repaired" not in entry) else None
    faulty, odd = make_entry("faulty"), make_entry("odd")
    async with running(path, sink) as bench:
        bench.send([faulty, odd, *make_entries(3)])
        await bench.trickle(lambda: dead(path))
        await until(lambda: sink.repair(odd) in sink.held)
    assert sink.asked[sink.repair(faulty)] >= 1
    assert read_rows(path, "SELECT log_id, entry FROM dead_letters") == [("faulty", faulty)]
    assert read_rows(path, "SELECT 1 FROM groups") == []
