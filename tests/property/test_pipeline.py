"""Every admitted event ends in the sink or in the dead letters, whatever sink and spool do and however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import SpoolUnavailable
from forebay.model import DELIVERED, DUPLICATE, Ack, Entry, Outcome, Verdict, entry_address
from forebay.pipeline import delivery, journal, pipeline, redelivery
from forebay.pipeline.pipeline import Pipeline
from forebay.settings import Settings
from forebay.spool.records import Transaction
from forebay.spool.spool import Spool
from forebay.telemetry.counters import Counters
from unit.pipeline.fakes import Inbox, assert_ledger_is_true, make_entry, read_rows, settle_down, until

NEVER_TAKEN = "dead"
"""Part of the `_id` of events that the sink will never take."""

# Smaller than settings may be.
TINY = Settings.model_construct(
    channel_events_max=12,
    channel_bytes_max=4000,
    bulk_events_max=4,
    bulk_bytes_max=1200,
    bulk_interval_s=0.004,
    bulk_workers=3,
    retry_interval_s=0.02,
    retry_delay_s_min=0.001,
    retry_delay_s_max=0.004,
)

BULK_ANSWERS = (
    "each for itself",
    "each for itself",
    "each for itself",
    "all taken",
    "all busy",
    "all paused",
    "exception",
    "exception after taking",
    "too few outcomes",
    "too many outcomes",
    "slow",
)
EVENT_ANSWERS = ("taken", "taken", "taken", "taken and busy", "busy", "paused")


class MoodySink:
    """A sink that holds each `_id` once and, until it is well, answers as it likes."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.well = False
        self.held: dict[str, Entry] = {}

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        await asyncio.sleep(0)
        answer = "all taken" if self.well else self._chance.choice(BULK_ANSWERS)
        if answer == "slow":
            await asyncio.sleep(0.01)
        if answer == "exception":
            raise RuntimeError("a bug")
        if answer in ("all busy", "all paused"):
            return [_refusal(answer.removeprefix("all "))] * len(entries)
        each = answer == "each for itself"
        outcomes = [self._answer(entry, self._chance.choice(EVENT_ANSWERS) if each else "taken") for entry in entries]
        if answer == "exception after taking":
            raise OSError("connection lost")
        if answer == "too few outcomes":
            outcomes.pop()
        if answer == "too many outcomes":
            outcomes.append(DELIVERED)
        return outcomes

    def _answer(self, entry: Entry, answer: str) -> Outcome:
        log_id = entry_address(entry).log_id
        if answer in ("busy", "paused"):
            return _refusal(answer)
        if NEVER_TAKEN in log_id:
            return Outcome(Verdict.DEAD, "mapper_parsing_exception", "failed to parse")
        was_there = log_id in self.held
        assert self.held.setdefault(log_id, entry) == entry
        if answer == "taken and busy":
            return _refusal("busy")
        return DUPLICATE if was_there else DELIVERED


def _refusal(answer: str) -> Outcome:
    return Outcome(Verdict.PAUSE if answer == "paused" else Verdict.RETRY, "exception", answer)


class MoodySpool(Spool):
    """A spool that refuses some commits."""

    refuses: Callable[[], bool] = staticmethod(lambda: False)

    def commit(self, transaction: Transaction, done: Callable[[list[int] | SpoolUnavailable], None]) -> None:
        if self.refuses():
            asyncio.get_running_loop().call_soon(done, SpoolUnavailable("disk full"))
        else:
            super().commit(transaction, done)


@dataclass(frozen=True)
class Request:
    """What one client sends, and how long it is until the next."""

    events: int
    size: int
    ack: Ack
    dead: bool
    pause_s: float


@dataclass(frozen=True)
class Life:
    """One run of the pipeline; `deliver_s` is the time for delivery at its end, or None where it crashes."""

    requests: list[Request]
    deliver_s: float | None
    refused_commits: float


@dataclass
class World:
    """What there is outside the pipeline."""

    folder: Path
    sink: MoodySink
    chance: random.Random
    must_arrive: dict[str, Entry] = field(default_factory=dict)
    may_arrive: dict[str, Entry] = field(default_factory=dict)
    made: int = 0

    @property
    def path(self) -> Path:
        return self.folder / "spool.db"

    def make_entries(self, request: Request) -> list[Entry]:
        self.made += request.events
        numbers = range(self.made - request.events, self.made)
        size = max(request.size, 80) if request.size else 0
        return [
            make_entry(f"{NEVER_TAKEN if request.dead and not number % 2 else 'good'}{number}", size)
            for number in numbers
        ]


requests = st.builds(
    Request,
    events=st.sampled_from((1, 1, 2, 3, 4, 5, 9, 20)),
    size=st.sampled_from((0, 0, 100, 400, 1500, 5000)),
    ack=st.sampled_from(Ack),
    dead=st.booleans(),
    pause_s=st.sampled_from((0, 0, 0, 0.001, 0.006)),
)
lives = st.builds(
    Life,
    requests=st.lists(requests, max_size=12),
    deliver_s=st.sampled_from((0, 0.003, 0.02, 5, None)),
    refused_commits=st.sampled_from((0, 0, 0.1, 0.4)),
)


# More than the channel has room for.
LAST_REQUESTS = [Request(events=9, size=0, ack=Ack.DISK, dead=False, pause_s=0)] * 4


async def live(world: World, life: Life) -> None:
    """Run a pipeline through one life."""
    spool = MoodySpool(world.path)
    spool.start(asyncio.get_running_loop())
    spool.refuses = lambda: world.chance.random() < life.refused_commits
    whole = Pipeline(spool, world.sink, TINY, Counters())
    running = asyncio.create_task(whole.run())
    sent: list[tuple[Inbox, Ack]] = []
    for request in life.requests:
        inbox = Inbox(world.make_entries(request))
        whole.admitter.admit(inbox, request.ack)
        sent.append((inbox, request.ack))
        await asyncio.sleep(request.pause_s)
    if life.deliver_s is None:
        await crash(world, spool, whole, running, sent)
        return
    await asyncio.wait_for(whole.stop(running, life.deliver_s), 15)
    assert running.cancelled(), "it ran until it was stopped"
    await settle_down()
    assert_ledger_is_true(whole._journal.ledger, world.path)
    for inbox, _ in sent:
        assert len(inbox.heard) == 1
        if not isinstance(inbox.heard[0], SpoolUnavailable):
            world.must_arrive |= by_id(inbox.entries)
    spool.close()
    await settle_down()


async def crash(
    world: World, spool: Spool, whole: Pipeline, running: asyncio.Task[None], sent: list[tuple[Inbox, Ack]]
) -> None:
    """End as a process does that is killed: what is in the file by then is all that is left."""
    for inbox, ack in sent:
        if not inbox.heard:
            world.may_arrive |= by_id(inbox.entries)
        elif not isinstance(inbox.heard[0], SpoolUnavailable):
            (world.must_arrive if ack is Ack.DISK else world.may_arrive).update(by_id(inbox.entries))
    left = world.folder.with_name(f"{world.folder.name}+")
    await spool._call(lambda _connection, _codec: shutil.copytree(world.folder, left))
    running.cancel()
    for task in whole._delivery._in_flight:
        task.cancel()
    await asyncio.gather(running, *whole._delivery._in_flight, return_exceptions=True)
    spool.close()
    await settle_down()
    world.folder = left


async def recover(world: World) -> None:
    """Run a pipeline with a sink that is well until nothing waits any more, though no pass begins by itself."""
    world.sink.well = True
    spool = Spool(world.path)
    spool.start(asyncio.get_running_loop())
    whole = Pipeline(spool, world.sink, TINY.model_copy(update={"retry_interval_s": 3600}), Counters())
    running = asyncio.create_task(whole.run())
    inboxes = [Inbox(world.make_entries(request)) for request in LAST_REQUESTS]
    for inbox in inboxes:
        whole.admitter.admit(inbox, Ack.DISK)
        world.must_arrive |= by_id(inbox.entries)
    await until(lambda: all(inbox.heard for inbox in inboxes) and not read_rows(world.path, "SELECT 1 FROM groups"))
    await asyncio.wait_for(whole.stop(running, 5), 15)
    assert running.cancelled()
    assert whole.state.stored_events == whole.state.pending_events == whole.state.channel_events == 0
    spool.close()
    await settle_down()


def by_id(entries: list[Entry]) -> dict[str, Entry]:
    return {entry_address(entry).log_id: entry for entry in entries}


@pytest.fixture(autouse=True)
def _quick_and_quiet() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(redelivery, "POLL_S", 0.005))
        stack.enter_context(mock.patch.object(journal, "RETRY_S", 0.005))
        for module in (delivery, pipeline, redelivery):
            stack.enter_context(mock.patch.object(module, "log", mock.Mock()))
        yield


@settings(max_examples=60, deadline=None)
@given(
    lives=st.lists(lives, min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
    new_event_loop=st.sampled_from((asyncio.new_event_loop, uvloop.new_event_loop)),
)
def test_every_admitted_event_ends_in_the_sink_or_in_the_dead_letters(
    lives: list[Life], seed: int, new_event_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        world = World(Path(folder) / "life", MoodySink(seed), random.Random(seed))
        world.folder.mkdir()
        runner = stack.enter_context(asyncio.Runner(loop_factory=new_event_loop))
        for life in lives:
            runner.run(live(world, life))
        runner.run(recover(world))

        dead = dict(read_rows(world.path, "SELECT log_id, entry FROM dead_letters"))
        arrived = world.sink.held | dead
        assert not world.sink.held.keys() & dead.keys()
        assert {log_id: arrived.get(log_id) for log_id in world.must_arrive} == world.must_arrive
        assert arrived.items() <= (world.must_arrive | world.may_arrive).items(), "nothing that was refused"
        assert all(NEVER_TAKEN in log_id for log_id in dead)
