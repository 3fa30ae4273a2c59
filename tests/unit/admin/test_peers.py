"""Workers that ask each other for their state, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from forebay.admin import peers
from forebay.admin.peers import Peers
from forebay.admin.snapshot import Snapshot, decode_snapshot, encode_snapshot
from forebay.model import Verdict
from forebay.pipeline.gate import Health
from forebay.pipeline.pipeline import State
from forebay.telemetry.counters import Counters

STATE = State(1, 2, 3, 4, 5, Health.PAUSED, "no index", "", spool_full=False)


def snapshot(number: int) -> Snapshot:
    counters = Counters(accepted=number, requests=Counter({200: 1, 413: 2}), outcomes=Counter({Verdict.DEAD: 4}))
    return Snapshot(number, counters, STATE, {"process_open_fds": 7.0}, stopping=False)


@contextlib.asynccontextmanager
async def answering(folder: Path, number: int, observe: Callable[[], Snapshot] | None = None) -> AsyncIterator[None]:
    """Let a worker answer, from before the body of the `with` until its end."""
    task = asyncio.create_task(Peers(number, 3, folder).answer(observe or (lambda: snapshot(number))))
    async with asyncio.timeout(10):
        while number not in (await Peers(1, 3, folder).ask(snapshot(1))).snapshots:
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
        server = await Peers(1, 3, tmp_path).ask(snapshot(1))
    assert server.snapshots == {1: snapshot(1), 2: snapshot(2)}
    assert server.missing == [3]


async def test_a_worker_that_is_started_again_answers_in_the_place_of_the_fallen(tmp_path: Path) -> None:
    for _ in range(2):
        async with answering(tmp_path, 2):
            server = await Peers(1, 3, tmp_path).ask(snapshot(1))
        assert 2 in server.snapshots


async def test_nobody_waits_for_a_worker_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ANSWER_S", 0.05)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(say_nothing, tmp_path / "2.sock"):
        async with asyncio.timeout(10):
            server = await Peers(1, 2, tmp_path).ask(snapshot(1))
    assert server.missing == [2]


async def test_nonsense_is_no_answer(tmp_path: Path) -> None:
    def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense")
        writer.close()

    async with await asyncio.start_unix_server(talk, tmp_path / "2.sock"):
        server = await Peers(1, 2, tmp_path).ask(snapshot(1))
    assert server.missing == [2]


async def test_a_server_of_one_process_asks_nobody_and_needs_no_folder() -> None:
    alone = Peers()
    await alone.answer(lambda: snapshot(1))
    assert (await alone.ask(snapshot(1))).missing == []


async def test_the_last_worker_to_leave_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "meeting"
    folder.mkdir()
    async with answering(folder, 3):
        async with answering(folder, 2):
            pass
        Peers(2, 3, folder).leave()
        assert [path.name for path in folder.iterdir()] == ["3.sock"]
    Peers(3, 3, folder).leave()
    assert not folder.exists()


async def test_the_worker_of_an_orphan_is_heard_and_is_not_missed_when_it_has_ended(tmp_path: Path) -> None:
    orphan = asyncio.create_task(Peers(7, 1, tmp_path).answer(lambda: snapshot(7)))
    async with asyncio.timeout(10):
        while 7 not in (server := await Peers(1, 1, tmp_path).ask(snapshot(1))).snapshots:
            await asyncio.sleep(0)
    assert (server.workers, server.missing) == (1, [])
    orphan.cancel()
    await asyncio.gather(orphan, return_exceptions=True)
    server = await Peers(1, 1, tmp_path).ask(snapshot(1))
    assert (list(server.snapshots), server.missing) == ([1], [])


async def test_any_worker_tells_why_orphans_are_not_emptied(tmp_path: Path) -> None:
    peers = Peers(1, 1, tmp_path)
    peers.left_spools = ("spool.3.db is damaged",)
    assert (await peers.ask(snapshot(1))).left_spools == ("spool.3.db is damaged",)
