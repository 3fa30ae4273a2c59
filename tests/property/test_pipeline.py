"""Every admitted event ends in the sink or in the dead letters, however sink, spool and process fail."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.clock import now_ms
from forebay.errors import SpoolUnavailable
from forebay.model import Ack, Entry, Outcome, Verdict, entry_address
from forebay.pipeline import (
    delivery,
    holds,
    journal,
    pipeline,
    redelivery,
    separate_bulks,
    settlement,
    wake,
)
from forebay.pipeline import requests as requests_module
from forebay.pipeline.group import Bulk, Settlement
from forebay.pipeline.pipeline import Pipeline
from forebay.pipeline.requests import BURIED
from forebay.settings import Settings
from forebay.sinks import sifting
from forebay.spool.beside.inspection import inspect
from forebay.spool.beside.requests import Burial
from forebay.spool.records import Transaction
from forebay.spool.spool import Spool
from forebay.telemetry.counters import Counters
from property.memory import make_folder
from property.moody_sink import DEADLY, FAULTY, POISON, WALLED, MoodySink
from unit.pipeline.fakes import TINY, Inbox, assert_state_is_true, make_entry, read_rows, settle_down

# So that few events reach every limit.
TINIEST = TINY.model_copy(
    update={
        "channel_events_max": 12,
        "channel_bytes_max": 4000,
        "bulk_events_max": 4,
        "bulk_bytes_max": 1200,
        "bulk_interval_s": 0.004,
        "bulk_workers": 3,
        "retry_interval_s": 0.02,
        "retry_delay_s_min": 0.001,
        "retry_delay_s_max": 0.004,
    }
)


THERE = (Verdict.DELIVERED, Verdict.DUPLICATE, Verdict.DROPPED)

SLOW_S = 0.01
"""How long a slow disk takes for a commit."""


class MoodySpool(Spool):
    """A spool that refuses some commits and takes long for others; none comes to it from a process that is dead."""

    refuses: Callable[[Transaction], bool] = staticmethod(lambda _: False)
    is_slow: Callable[[], bool] = staticmethod(lambda: False)
    is_left = False

    def commit(
        self,
        transaction: Transaction,
        done: Callable[[Mapping[int, int] | SpoolUnavailable], None],
        awaited: Sequence[int] = (),
    ) -> None:
        if self.is_left:
            return
        if self.refuses(transaction):
            asyncio.get_running_loop().call_soon(done, SpoolUnavailable("disk full"))
        else:
            if self.is_slow():
                self.submit(lambda _: time.sleep(SLOW_S))
            super().commit(transaction, done, awaited)


@dataclass(frozen=True)
class Request:
    """The events of one client, and the pause before the next."""

    events: int
    size: int
    ack: Ack
    kind: str
    month: str
    pause_s: float


@dataclass(frozen=True)
class Life:
    """One run of the pipeline.

    Attributes:
        bury_at: the request before which an operator has everything buried that is pending.
        deliver_s: the time for delivery at its end, or None if it crashes.
    """

    requests: list[Request]
    bury_at: int | None
    deliver_s: float | None
    refused_commits: float
    slow_commits: float


@dataclass
class World:
    """Everything outside the pipeline."""

    folder: Path
    sink: MoodySink
    chance: random.Random
    must_arrive: dict[str, Entry] = field(default_factory=dict)
    may_arrive: dict[str, Entry] = field(default_factory=dict)
    made: int = 0
    has_deadly: bool = False

    @property
    def path(self) -> Path:
        return self.folder / "spool.db"

    def make_entries(self, request: Request) -> list[Entry]:
        self.made += request.events
        numbers = range(self.made - request.events, self.made)
        size = max(request.size, 90) if request.size else 0
        return [make_entry(f"{self._kind(request, number)}{number}", size, request.month) for number in numbers]

    def _kind(self, request: Request, number: int) -> str:
        if request.kind == DEADLY:
            # One in all: each ends a life.
            kind, self.has_deadly = "good" if self.has_deadly else DEADLY, True
            return kind
        return request.kind if number % 2 else "good"


requests = st.builds(
    Request,
    events=st.sampled_from((1, 1, 2, 3, 4, 5, 9, 20)),
    size=st.sampled_from((0, 0, 100, 400, 1500, 5000)),
    ack=st.sampled_from(Ack),
    kind=st.sampled_from(("good", "good", "good", FAULTY, FAULTY, WALLED, POISON, DEADLY)),
    month=st.sampled_from(("2026-11", "2026-11", "2026-12")),
    pause_s=st.sampled_from((0, 0, 0, 0.001, 0.006)),
)
lives = st.builds(
    Life,
    requests=st.lists(requests, max_size=12),
    bury_at=st.sampled_from((None, None, None, 2, 6)),
    deliver_s=st.sampled_from((0, 0.003, 0.02, 5, None)),
    refused_commits=st.sampled_from((0, 0, 0.1, 0.4)),
    slow_commits=st.sampled_from((0, 0, 0.1, 1)),
)


# Of each index: without others that are taken nothing of it is known to be at fault.
LAST_REQUESTS = [
    Request(events=9, size=0, ack=Ack.DISK, kind="good", month=month, pause_s=0) for month in ("2026-11", "2026-12")
]
RECOVERY_S = 60.0


class Run:
    """One process: a pipeline on the world's spool."""

    def __init__(self, world: World, settings: Settings) -> None:
        self.world = world
        self.spool = MoodySpool(world.path)
        self.spool.start(asyncio.get_running_loop(), world.sink.repair)
        self.pipeline = Pipeline(self.spool, world.sink, settings, Counters())
        self.running = asyncio.create_task(self.pipeline.run())
        self.sent: list[tuple[Inbox, Ack]] = []
        self.crashed = asyncio.Event()
        world.sink.on_deadly = self.die

    def die(self) -> None:
        """Be dead at once, though this goes on running until somebody looks."""
        self.spool.is_left = True
        self.crashed.set()

    def send(self, request: Request) -> Inbox:
        inbox = Inbox(self.world.make_entries(request))
        self.pipeline.admitter.admit(inbox, request.ack)
        self.sent.append((inbox, request.ack))
        return inbox

    async def stop(self, deliver_s: float) -> None:
        """End in order, or crash in the middle of it."""
        stopping = asyncio.create_task(self.pipeline.stop(self.running, deliver_s))
        dying = asyncio.create_task(self.crashed.wait())
        await asyncio.wait({stopping, dying}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if self.crashed.is_set():
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            await self.crash()
            return
        assert stopping.done()
        stopping.result()
        assert self.running.cancelled(), "it ran until it was stopped"
        await settle_down()
        assert_state_is_true(self.pipeline.state, self.world.path)
        for inbox, _ in self.sent:
            assert len(inbox.heard) == 1
            if not isinstance(inbox.heard[0], SpoolUnavailable):
                self.world.must_arrive |= by_id(inbox.entries)
        self.spool.close()
        await settle_down()

    async def crash(self) -> None:
        """End as a killed process does: only the file is left."""
        world = self.world
        for inbox, ack in self.sent:
            if not inbox.heard:
                world.may_arrive |= by_id(inbox.entries)
            elif not isinstance(inbox.heard[0], SpoolUnavailable):
                (world.must_arrive if ack is Ack.DISK else world.may_arrive).update(by_id(inbox.entries))
        left = world.folder.with_name(f"{world.folder.name}+")
        await self.spool.call(lambda _: shutil.copytree(world.folder, left))
        # Bulks in flight among them.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.spool.close()
        await settle_down()
        world.folder = left


async def live(world: World, life: Life) -> None:
    """Run a pipeline through one life."""
    run = Run(world, TINIEST)
    # On a full disk it is the insertions that fail.
    run.spool.refuses = lambda work: world.chance.random() < life.refused_commits * (2 if work.inserts else 1)
    run.spool.is_slow = lambda: world.chance.random() < life.slow_commits
    with listen() as told:
        for number, request in enumerate(life.requests):
            if number == life.bury_at:
                with inspect(world.path) as inspection:
                    inspection.ask(Burial(now_ms() + 1))
            run.send(request)
            await asyncio.sleep(request.pause_s)
            if run.crashed.is_set():
                break
        if life.deliver_s is None or run.crashed.is_set():
            await run.crash()
        else:
            await run.stop(life.deliver_s)
    letters = read_rows(world.path, "SELECT log_id FROM dead_letters WHERE error_type = ?", [BURIED])
    assert not {log_id for (log_id,) in letters} & told


@contextlib.contextmanager
def listen() -> Iterator[set[str]]:
    """Return the events that the sink says are there, in answers that are heard."""
    told: set[str] = set()

    def settle(bulk: Bulk, outcomes: Sequence[Outcome], *others: Any) -> list[Settlement]:
        pairs = zip(bulk.entries, outcomes, strict=True)
        told.update(entry_address(entry).log_id for entry, outcome in pairs if outcome.verdict in THERE)
        return settlement.settle(bulk, outcomes, *others)

    with mock.patch.object(delivery, "settle", settle):
        yield told


async def recover(world: World) -> None:
    """Run a pipeline with a sink that is well until nothing waits any more.

    A round begins now and then: an event refused with a status that may pass waits for the next one.
    """
    world.sink.well = True
    run = Run(world, TINIEST.model_copy(update={"retry_interval_s": 0.05}))
    # More than the channel has room for.
    for request in 2 * LAST_REQUESTS:
        run.send(request)
    deadline = asyncio.get_running_loop().time() + RECOVERY_S
    rounds = 0
    while read_rows(world.path, "SELECT 1 FROM groups") or not all(inbox.heard for inbox, _ in run.sent):
        assert asyncio.get_running_loop().time() < deadline, tell_waiting(world)
        # Others have to be taken for one to be known as poison; and there must be a time when nothing waits.
        rounds += 1
        if rounds % 20 < 10:
            run.send(LAST_REQUESTS[rounds % 2])
        await asyncio.sleep(0.005)
    await run.stop(5)
    state = run.pipeline.state
    assert state.stored_events == state.pending_events == state.channel_events == 0
    assert not state.holds


def tell_waiting(world: World) -> list[tuple[object, ...]]:
    return read_rows(world.path, "SELECT id, index_name, events, strikes, refusals, refused_status FROM groups")


def by_id(entries: list[Entry]) -> dict[str, Entry]:
    return {entry_address(entry).log_id: entry for entry in entries}


@pytest.fixture(autouse=True)
def _quick_and_quiet() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(requests_module, "POLL_S", 0.005))
        stack.enter_context(mock.patch.object(requests_module, "LOADED_POLL_S", 0.002))
        stack.enter_context(mock.patch.object(journal, "RETRY_S", 0.005))
        stack.enter_context(mock.patch.object(wake, "SOON_S", 0.02))
        stack.enter_context(mock.patch.object(separate_bulks, "POLL_S", 0.002))
        for module in (delivery, holds, pipeline, redelivery, requests_module, separate_bulks, sifting):
            stack.enter_context(mock.patch.object(module, "log", mock.Mock()))
        yield


@settings(max_examples=40, deadline=None)
@given(
    lives=st.lists(lives, min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
    new_event_loop=st.sampled_from((asyncio.new_event_loop, uvloop.new_event_loop)),
)
def test_every_admitted_event_ends_in_the_sink_or_in_the_dead_letters(
    lives: list[Life], seed: int, new_event_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with make_folder() as folder, contextlib.ExitStack() as stack:
        world = World(Path(folder) / "life", MoodySink(seed), random.Random(seed))
        world.folder.mkdir()
        runner = stack.enter_context(asyncio.Runner(loop_factory=new_event_loop))
        for life in lives:
            runner.run(live(world, life))
        runner.run(recover(world))

        letters = read_rows(world.path, "SELECT log_id, entry, error_type FROM dead_letters")
        dead = {log_id: entry for log_id, entry, _ in letters}
        arrived = world.sink.held | dead
        # An event that was taken, and of which no answer says so, may be buried.
        buried = {log_id for log_id, _, error_type in letters if error_type == BURIED}
        assert not world.sink.held.keys() & (dead.keys() - buried)
        assert {log_id: arrived.get(log_id) for log_id in world.must_arrive} == world.must_arrive
        assert arrived.items() <= (world.must_arrive | world.may_arrive).items(), "nothing that was refused"
        for log_id, _, error_type in letters:
            if error_type == BURIED:
                continue
            named = (POISON,) if error_type == POISON else (FAULTY, WALLED)
            assert any(kind in log_id for kind in named), (log_id, error_type)
