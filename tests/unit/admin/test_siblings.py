"""Workers that ask each other how they are, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from forebay.admin import siblings
from forebay.admin.siblings import Siblings
from forebay.admin.snapshot import Snapshot, decode_snapshot, encode_snapshot
from forebay.model import Verdict
from forebay.pipeline.gate import Health
from forebay.pipeline.pipeline import State
from forebay.telemetry.counters import Counters

STATE = State(1, 2, 3, 4, 5, Health.PAUSED, "no index", "", spool_full=False)


def snapshot(slot: int) -> Snapshot:
    counters = Counters(accepted=slot, requests=Counter({200: 1, 413: 2}), outcomes=Counter({Verdict.DEAD: 4}))
    return Snapshot(slot, counters, STATE, {"process_open_fds": 7.0}, [], stopping=False)


@contextlib.asynccontextmanager
async def answering(folder: Path, slot: int, observe: Callable[[], Snapshot] | None = None) -> AsyncIterator[None]:
    """Have a worker answer; it does already when this is entered."""
    task = asyncio.create_task(Siblings(slot, 3, folder).answer(observe or (lambda: snapshot(slot))))
    async with asyncio.timeout(10):
        while slot not in (await Siblings(1, 3, folder).ask(snapshot(1))).snapshots:
            await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_snapshot_arrives_as_it_was_sent() -> None:
    arrived = decode_snapshot(encode_snapshot(snapshot(2)))
    assert arrived == snapshot(2)
    assert isinstance(arrived.counters.outcomes, Counter)
    assert arrived.state.sink_health is Health.PAUSED


async def test_a_worker_hears_from_those_that_answer_and_knows_who_is_missing(tmp_path: Path) -> None:
    async with answering(tmp_path, 2):
        together = await Siblings(1, 3, tmp_path).ask(snapshot(1))
    assert together.snapshots == {1: snapshot(1), 2: snapshot(2)}
    assert together.missing == [3]


async def test_a_worker_that_is_started_again_answers_in_the_place_of_the_fallen(tmp_path: Path) -> None:
    for _ in range(2):
        async with answering(tmp_path, 2):
            together = await Siblings(1, 3, tmp_path).ask(snapshot(1))
        assert 2 in together.snapshots


async def test_a_worker_that_takes_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "ANSWER_S", 0.05)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(say_nothing, tmp_path / "2.sock"):
        async with asyncio.timeout(10):
            together = await Siblings(1, 2, tmp_path).ask(snapshot(1))
    assert together.missing == [2]


async def test_nonsense_is_no_answer(tmp_path: Path) -> None:
    def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense")
        writer.close()

    async with await asyncio.start_unix_server(talk, tmp_path / "2.sock"):
        together = await Siblings(1, 2, tmp_path).ask(snapshot(1))
    assert together.missing == [2]


async def test_a_server_of_one_process_asks_nobody_and_needs_no_folder() -> None:
    alone = Siblings()
    await alone.answer(lambda: snapshot(1))
    assert (await alone.ask(snapshot(1))).missing == []


async def test_the_last_worker_to_leave_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "meeting"
    folder.mkdir()
    async with answering(folder, 3):
        async with answering(folder, 2):
            pass
        Siblings(2, 3, folder).leave()
        assert [path.name for path in folder.iterdir()] == ["3.sock"]
    Siblings(3, 3, folder).leave()
    assert not folder.exists()
