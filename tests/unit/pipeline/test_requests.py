"""Redelivery goes when a command asks for it, and replayed dead letters go with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forebay.errors import SpoolUnavailable
from forebay.history import DeadLetter, History
from forebay.model import Entry
from forebay.pipeline import requests
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.beside.requests import Request
from forebay.spool.records import Transaction
from unit.pipeline.fakes import (
    RETRY,
    assert_ledger_is_true,
    commit,
    make_entries,
    make_entry,
    open_spool,
    read_rows,
    settle_down,
    until,
)
from unit.pipeline.redelivery_bench import Bench, FakeStore, fill


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "POLL_S", 0.01)


async def _deliver_one(bench: Bench) -> list[Entry]:
    await until(lambda: bench.channel.events)
    return bench.deliver()


async def test_a_request_to_retry_begins_a_pass(path: Path) -> None:
    entries = await fill(path, groups=1)
    async with open_spool(path) as spool:
        bench = Bench(spool)
        async with bench.run_all():
            await until(lambda: bench.channel.events)
            bench.deliver(RETRY)
            await bench.journal.wait_written()
            assert bench.ledger.pending_events == 10

            with inspect(path) as inspection:
                inspection.ask(Request.RETRY)

            await until(lambda: bench.channel.events)
            assert bench.deliver() == entries


async def test_a_replayed_dead_letter_comes_back(path: Path) -> None:
    letters = [DeadLetter(entry, "type", "reason", History(1), 1000) for entry in make_entries(25)]
    async with open_spool(path) as spool:
        await commit(spool, Transaction(dead=letters))
        bench = Bench(spool)
        async with bench.run_all():
            await settle_down()
            with inspect(path) as inspection:
                assert inspection.request_replay(Choice()) == 25
                inspection.ask(Request.REPLAY)

            delivered = await asyncio.wait_for(_deliver_count(bench, 25), 5)
            await bench.journal.wait_written()

        assert sorted(delivered) == sorted(make_entries(25))
        assert read_rows(path, "SELECT * FROM dead_letters") == read_rows(path, "SELECT * FROM groups") == []
        assert_ledger_is_true(bench.ledger, path)


async def _deliver_count(bench: Bench, events: int) -> list[Entry]:
    delivered: list[Entry] = []
    while len(delivered) < events:
        await until(lambda: bench.channel.events)
        delivered += bench.deliver()
    return delivered


async def test_a_replay_that_fails_is_not_forgotten() -> None:
    store = FakeStore()
    bench = Bench(store)
    async with bench.run_all():
        await settle_down()
        store.replays = [make_entries(3)]
        original = store.replay
        failures = [SpoolUnavailable("disk full")]

        async def replay(group_id: int, events_max: int) -> tuple[int, int]:
            if failures:
                raise failures.pop()
            return await original(group_id, events_max)

        store.replay = replay  # type: ignore[method-assign]
        store.requests = frozenset({"replay"})

        await until(lambda: bench.channel.events == 3)
    assert failures == []


async def test_a_replay_that_was_begun_before_the_end_is_finished_at_the_start(path: Path) -> None:
    async with open_spool(path) as spool:
        await commit(spool, Transaction(dead=[DeadLetter(make_entry("dead"), "type", "reason", History(1), 1000)]))
        with inspect(path) as inspection:
            inspection.request_replay(Choice())
        # Nobody asks: whoever took the request died.
        bench = Bench(spool)
        async with bench.run_all():
            assert await asyncio.wait_for(_deliver_one(bench), 5) == [make_entry("dead")]
