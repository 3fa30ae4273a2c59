"""Of an index on hold one bulk at a time goes to see if the sink takes its events again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from forebay.backoff import Backoff
from forebay.errors import SpoolUnavailable
from forebay.history import History
from forebay.model import DELIVERED, Entry, Outcome, entry_index
from forebay.pipeline.gate import Health, Report
from forebay.pipeline.group import Bulk, GroupLimits
from forebay.pipeline.holds import FRESH_TRIALS_MAX
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from unit.pipeline.fakes import (
    FAILED,
    FAULTY,
    PAUSE,
    Clock,
    FakeSink,
    Inbox,
    Parts,
    assert_ledger_is_true,
    commit,
    make_entries,
    make_entry,
    make_group,
    open_spool,
    put_on_hold,
    read_rows,
    settle_down,
    until,
)

NOVEMBER, DECEMBER = "events_test_2026-11", "events_test_2026-12"
BULK_EVENTS = 6
REFUSED = History(1, (1,), refused_status=400)


class Bench(Parts):
    """Trials on a real spool, with a sink that is answered by hand and a clock that stands still."""

    def __init__(self, spool: Spool) -> None:
        self.clock = Clock()
        super().__init__(
            spool,
            FakeSink(outcome=None),
            limits=GroupLimits(BULK_EVENTS, 100_000),
            backoff=Backoff(1000, 1000),
            holds_backoff=Backoff(1, 8, lambda _least, most: most),
            clock=self.clock,
        )

    async def next_trial(self, seconds: float) -> list[Entry]:
        """Let time go by until a trial has gone; return it."""
        bulks = len(self.sink.bulks)
        await self.clock.advance(seconds)
        await until(lambda: len(self.sink.bulks) > bulks)
        return self.sink.bulks[-1]

    async def answer(self, outcome: Outcome | list[Outcome], number: int = -1) -> None:
        """Answer a trial, and wait until nothing of it is in memory."""
        bulk = self.sink.bulks[number]
        await self.sink.answer(number, outcome if isinstance(outcome, list) else [outcome] * len(bulk))
        await self.journal.wait_written()
        await settle_down()

    async def has_rest(self) -> bool:
        """Return whether nothing goes before time moves on."""
        bulks = len(self.sink.bulks)
        # All that a trial waits for is the spool's thread, a few times in turn.
        for _ in range(5):
            await self.spool.call(lambda _: None)
            await settle_down()
        return len(self.sink.bulks) == bulks


@contextlib.asynccontextmanager
async def running(path: Path, rows: list[NewGroup], *indices: str) -> AsyncIterator[Bench]:
    """Let trials run on a spool with these rows, and indices on hold."""
    async with open_spool(path) as spool:
        await commit(spool, Transaction(inserts=rows))
    async with open_spool(path) as spool:
        bench = Bench(spool)
        for index in indices:
            put_on_hold(bench.holds, index)
        try:
            async with bench.running(bench.trials.run()):
                yield bench
        finally:
            await bench.journal.wait_written()
        assert_ledger_is_true(bench.ledger, path)


def new(*row_ids: int, events: int = 2, month: str = "2026-11") -> list[NewGroup]:
    return [NewGroup(row_id, make_entries(events, f"new{row_id}-", month=month)) for row_id in row_ids]


def refused(*row_ids: int, events: int = 2, status: int = 400) -> list[NewGroup]:
    history = structs.replace(REFUSED, refused_status=status)
    return [NewGroup(row_id, make_entries(events, f"old{row_id}-"), history) for row_id in row_ids]


def rows_of(bulk: list[Entry]) -> list[str]:
    """Return the rows that a bulk is of, in its order."""
    return list(dict.fromkeys(entry.partition(b'"_id":"')[2].partition(b"-")[0].decode() for entry in bulk))


async def test_a_trial_has_as_many_events_as_a_bulk_the_newest_and_the_oldest_first(path: Path) -> None:
    async with running(path, [*new(1, 2, 3, 4, 5), *new(6, month="2026-12")], NOVEMBER) as bench:
        assert rows_of(await bench.next_trial(1)) == ["new5", "new1", "new4"]


async def test_those_that_were_refused_follow_if_there_is_room_others_each_time(path: Path) -> None:
    async with running(path, [*refused(1, 2, status=403), *refused(3, 4, 5), *new(6)], NOVEMBER) as bench:
        seen = []
        for seconds in (1, 2, 4, 8, 8):
            seen.append(rows_of(await bench.next_trial(seconds)))
            await bench.answer(FAILED)

    assert seen == [
        ["new6", "old1", "old2"],
        ["new6", "old3", "old4"],
        ["new6", "old5"],
        ["new6"],
        ["new6", "old1", "old2"],
    ]


async def test_if_all_were_refused_the_trials_go_round_and_begin_anew(path: Path) -> None:
    async with running(path, refused(1, 2, 3, 4), NOVEMBER) as bench:
        seen = []
        for seconds in (1, 2):
            seen.append(rows_of(await bench.next_trial(seconds)))
            await bench.answer(FAULTY)
        await bench.clock.advance(4)
        assert await bench.has_rest(), "it has come to the end"
        seen.append(rows_of(await bench.next_trial(8)))

    assert seen == [["old1", "old2", "old3"], ["old4"], ["old1", "old2", "old3"]]


async def test_one_trial_goes_at_a_time(path: Path) -> None:
    async with running(path, new(1, 2, 3, 4, 5, 6, 7, 8, 9), NOVEMBER) as bench:
        await bench.next_trial(1)
        bench.holds.note_fresh(NOVEMBER)
        await bench.clock.advance(100)
        assert await bench.has_rest()

        await bench.answer(FAULTY)

        await until(lambda: len(bench.sink.bulks) == 2)
        assert await bench.has_rest()


async def test_two_indices_do_not_wait_for_each_other(path: Path) -> None:
    rows = [*new(1, 2), *new(3, 4, month="2026-12")]
    async with running(path, rows, NOVEMBER, DECEMBER) as bench:
        await bench.next_trial(1)
        await until(lambda: len(bench.sink.bulks) == 2)
        assert [{entry_index(entry) for entry in bulk} for bulk in bench.sink.bulks] == [{NOVEMBER}, {DECEMBER}]

        await bench.answer(DELIVERED, 1)

        assert bench.holds.indices == {NOVEMBER}
        assert bench.wake.heard == ["now"]


@pytest.mark.parametrize("others", [DELIVERED, PAUSE])
async def test_the_hold_is_lifted_by_the_first_event_that_is_taken(path: Path, others: Outcome) -> None:
    async with running(path, new(1, 2), NOVEMBER) as bench:
        bulk = await bench.next_trial(1)
        await bench.answer([DELIVERED, *[DELIVERED if others is DELIVERED else FAULTY] * (len(bulk) - 1)])

        assert not bench.holds
        assert bench.wake.heard[0] == "now"
        await bench.clock.advance(100)
        assert await bench.has_rest(), "the rest goes as usual"
    statuses = read_rows(path, "SELECT refusals, refused_status, events FROM groups ORDER BY id")
    assert statuses == ([] if others is DELIVERED else [(1, 400, 2), (1, 400, 1)])


async def test_a_trial_that_is_refused_strikes_nobody_and_the_hold_stays(path: Path) -> None:
    async with running(path, new(1, 2), NOVEMBER) as bench:
        await bench.next_trial(1)
        await bench.answer(FAULTY)
        for _ in range(5):
            await bench.next_trial(8)
            await bench.answer(FAULTY)
            await bench.clock.advance(8)
            assert await bench.has_rest(), "all were refused by now, and it begins anew"
        assert bench.holds.indices == {NOVEMBER}
        assert bench.gate.health is Health.GOOD
    assert read_rows(path, "SELECT attempts, refusals, refused_status FROM groups") == [(6, 0, 400)] * 2
    assert read_rows(path, "SELECT 1 FROM dead_letters") == []


async def test_fresh_events_are_tried_at_once_three_times(path: Path) -> None:
    async with running(path, [], NOVEMBER) as bench:
        for number in range(1, FRESH_TRIALS_MAX + 3):
            bench.journal.submit(Inbox([make_entry(f"fresh{number}-")]))
            await bench.journal.wait_written()
            if number <= FRESH_TRIALS_MAX:
                await until(lambda number=number: len(bench.sink.bulks) == number)  # type: ignore[misc]
                assert f"fresh{number}" in rows_of(bench.sink.bulks[-1])
                await bench.answer(FAULTY)
            else:
                assert await bench.has_rest()

        bulk = await bench.next_trial(8)

        assert rows_of(bulk)[:2] == ["fresh5", "fresh4"], "those that were never refused first"


@pytest.mark.parametrize("outcome", [DELIVERED, FAULTY, PAUSE])
async def test_while_the_sink_is_not_well_one_group_goes_and_finds_out_if_it_is_back(
    path: Path, outcome: Outcome
) -> None:
    async with running(path, new(1, 2, 3), NOVEMBER) as bench:
        bench.gate.leave(await bench.gate.enter(), Report(Health.FAILED, failed=FAILED), 0.02)

        assert rows_of(await bench.next_trial(1)) == ["new3"]
        await bench.answer(FAILED)
        assert bench.gate.health is Health.FAILED

        assert len(rows_of(await bench.next_trial(2))) == 1
        await bench.answer(outcome)
        assert bench.gate.health.value == "good", "it has an answer for the event"


async def test_a_suspect_is_not_tried_with_others(path: Path) -> None:
    suspect = NewGroup(9, make_entries(1, "suspect"), History(3, (1,), strikes=3))
    async with running(path, [*new(1), suspect], NOVEMBER) as bench:
        assert rows_of(await bench.next_trial(1)) == ["new1"]
        assert bench.ledger.set_apart == {9}


async def test_if_there_are_only_suspects_one_of_them_goes(path: Path) -> None:
    suspects = [NewGroup(row_id, make_entries(1, f"s{row_id}-"), History(3, (1,), strikes=3)) for row_id in (7, 8, 9)]
    async with running(path, suspects, NOVEMBER) as bench:
        assert rows_of(await bench.next_trial(1)) == ["s9"]
        await bench.answer(DELIVERED)
        assert not bench.holds
    assert read_rows(path, "SELECT id FROM groups ORDER BY id") == [(7,), (8,)]


async def test_an_index_of_which_nothing_is_left_is_on_hold_no_more(path: Path) -> None:
    async with running(path, [], NOVEMBER) as bench:
        await bench.clock.advance(1)
        assert await bench.has_rest()
        assert not bench.holds


async def test_a_spool_that_cannot_be_read_for_a_while_ends_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(path, new(1), NOVEMBER) as bench:
        with monkeypatch.context() as patch:
            patch.setattr(Spool, "load_trial", fail)
            await bench.clock.advance(1)
            assert await bench.has_rest()
        assert rows_of(await bench.next_trial(2)) == ["new1"]


async def fail(*_: object) -> None:
    raise SpoolUnavailable("locked")


async def test_an_index_whose_hold_was_lifted_while_its_events_were_read_has_no_trial(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(path, new(1, 2), NOVEMBER) as bench:
        load_trial = Spool.load_trial

        async def load_late(spool: Spool, *arguments: object) -> object:
            stored = await load_trial(spool, *arguments)  # type: ignore[arg-type]
            entries = make_entries(1, "taken")
            bench.holds.learn(Bulk(entries, [(make_group(entries), entries)]), [DELIVERED], 0)
            return stored

        monkeypatch.setattr(Spool, "load_trial", load_late)
        await bench.clock.advance(1)
        assert await bench.has_rest()
        assert bench.ledger.loaded == {}
        assert bench.wake.heard == ["now"]
