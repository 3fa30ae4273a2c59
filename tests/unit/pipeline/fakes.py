"""Shared by the tests of the pipeline: entries, a submission, a spool and a sink that do as they are told, a clock."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import structlog
from structlog.testing import LogCapture

from forebay.backoff import Backoff
from forebay.errors import SpoolUnavailable
from forebay.history import DeadLetter, History
from forebay.model import DELIVERED, Admission, Entry, Outcome, Verdict, entry_index
from forebay.pipeline.channel import Channel, Limits
from forebay.pipeline.delivery import Delivery
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.gate import Gate, Report, judge
from forebay.pipeline.group import UNTRIED, Bulk, Group, GroupLimits, Part
from forebay.pipeline.holds import Holds
from forebay.pipeline.journal import Journal
from forebay.pipeline.ledger import Ledger
from forebay.pipeline.pipeline import State
from forebay.pipeline.redelivery import Redelivery
from forebay.pipeline.requests import Requests
from forebay.pipeline.separate_bulks import Suspects, Trials
from forebay.pipeline.wake import Wake
from forebay.settings import Settings
from forebay.spool.loading import EVERY
from forebay.spool.records import Totals, Transaction
from forebay.spool.spool import Spool
from forebay.telemetry.counters import Counters

PATIENCE_S = 10.0
NOTHING = Totals(0, 0, 0, 0, 0)
RETRY = Outcome(Verdict.RETRY, "rejected_execution_exception", "busy", is_busy=True)
FAILED = Outcome(Verdict.RETRY, "unreachable", "no answer in time", whole=True)
REFUSED = Outcome(Verdict.PAUSE, "security_exception", "no permissions", "look at the role", whole=True)
PAUSE = Outcome(Verdict.PAUSE, "cluster_block_exception", "read-only")
DEAD = Outcome(Verdict.DEAD, "mapper_parsing_exception", "failed to parse")
FAULTY = Outcome(Verdict.REFUSED, "mapper_parsing_exception", "failed to parse", status=400)
"""A refusal of a single event, before anybody knows whose fault it is."""


TINY = Settings.model_construct(
    channel_events_max=200,
    channel_bytes_max=100_000,
    bulk_events_max=20,
    bulk_bytes_max=10_000,
    bulk_interval_s=0.01,
    bulk_workers=4,
    retry_interval_s=0.2,
    retry_delay_s_min=0.01,
    retry_delay_s_max=0.08,
)
"""Smaller than settings may be."""


def make_entry(log_id: str, size: int = 0, month: str = "2026-11") -> Entry:
    """Return an entry; one that is given a size has it exactly."""
    action = b'{"create":{"_index":"events_test_%b","_id":"%b"}}\n' % (month.encode(), log_id.encode())
    padding = size - len(action) - len(b'{"x":""}\n')
    assert not size or padding >= 0, f"an entry of {log_id} takes at least {size - padding} bytes"
    return action + b'{"x":"%b"}\n' % (b"." * max(0, padding))


def make_entries(count: int, prefix: str = "e", size: int = 0, month: str = "2026-11") -> list[Entry]:
    return [make_entry(f"{prefix}{number}", size, month) for number in range(count)]


def make_parts(entries: Iterable[Entry]) -> list[Part]:
    """Return events as a request has them: by their index."""
    by_index: dict[str, list[Entry]] = {}
    for entry in entries:
        by_index.setdefault(entry_index(entry), []).append(entry)
    return [Part(index, part, sum(map(len, part))) for index, part in by_index.items()]


def make_group(entries: Sequence[Entry], row_id: int | None = None, history: History = UNTRIED) -> Group:
    group = Group(entry_index(entries[0]), row_id, history)
    group.extend(entries, sum(map(len, entries)))
    return group


def make_channel(  # one argument for each limit
    events_max: int = 10_000,
    bytes_max: int = 10_000_000,
    bulk_events_max: int = 1_000,
    bulk_bytes_max: int = 1_000_000,
    bulk_interval_s: float = 3600,
    clock: Clock | None = None,
) -> Channel:
    limits = Limits(events_max, bytes_max, bulk_events_max, bulk_bytes_max, bulk_interval_s)
    return Channel(limits, loop_of(clock))


def report(outcomes: Sequence[Outcome]) -> Report:
    """Return how the sink is, as outcomes show that say something about it."""
    found = judge(outcomes)
    assert found is not None
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, and not for ever."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.001)


async def settle_down() -> None:
    """Let everything run that can run without waiting for something."""
    for _ in range(10):
        await asyncio.sleep(0)


class Timer:
    """A handle of the clock's."""

    def __init__(self, when: float, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.when = when
        self.callback = callback
        self.arguments = arguments
        self.done = False

    def cancel(self) -> None:
        self.done = True


class Clock:
    """The part of an event loop that deals with time, which stands still until it is moved.

    Attributes:
        early_s: how much too early a timer fires, as uvloop's do.
    """

    def __init__(self, early_s: float = 0) -> None:
        self.early_s = early_s
        self.now = 1000.0
        self.timers: list[Timer] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return cast("asyncio.AbstractEventLoop", self)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *arguments: object) -> Timer:
        timer = Timer(when, callback, arguments)
        self.timers.append(timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> Timer:
        return self.call_at(self.now + delay, callback, *arguments)

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> asyncio.Handle:
        return asyncio.get_running_loop().call_soon(callback, *arguments)

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.done]

    async def advance(self, seconds: float) -> None:
        """Move on, let the timers fire that are due by then, and let everything run that they woke."""
        self.now += seconds
        for timer in sorted(self.waiting, key=lambda timer: timer.when):
            if not timer.done and timer.when - self.early_s <= self.now:
                timer.done = True
                timer.callback(*timer.arguments)
        await settle_down()


def put_on_hold(holds: Holds, index: str) -> None:
    """Let a bulk of one event be refused, as an index is that is blocked."""
    entries = make_entries(1, "refused", month=index[-7:])
    holds.learn(Bulk(entries, [(make_group(entries), entries)]), [PAUSE], 0)


def loop_of(clock: Clock | None) -> asyncio.AbstractEventLoop:
    """Return the event loop of a clock, or the one that runs."""
    return clock.loop if clock else asyncio.get_running_loop()


class Inbox:
    """A submission that remembers the answers it got."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.parts = make_parts(entries)
        self.heard: list[Admission | SpoolUnavailable] = []

    def admitted(self, admission: Admission) -> None:
        self.heard.append(admission)

    def refused(self, error: SpoolUnavailable) -> None:
        self.heard.append(error)


class FakeCommitter:
    """A `Committer` that answers when it is told to.

    Attributes:
        open: the commit that is not answered yet, if there is one.
        transactions: all commits, in their order.
        refusal: why nothing is taken.
    """

    def __init__(self, last_group_id: int = 0, totals: Totals = NOTHING) -> None:
        self.refusal = ""
        self.last_group_id = last_group_id
        self.totals = totals
        self.dead_bytes = totals.dead_bytes
        self.open: list[tuple[Transaction, Callable[[Mapping[int, int] | SpoolUnavailable], None]]] = []
        self.transactions: list[Transaction] = []

    def commit(
        self,
        transaction: Transaction,
        done: Callable[[Mapping[int, int] | SpoolUnavailable], None],
        awaited: Sequence[int] = (),
    ) -> None:
        del awaited
        assert not self.open, "one commit at a time"
        self.open.append((transaction, done))
        self.transactions.append(transaction)

    async def answer(self, error: str = "") -> Transaction:
        """Answer the commit that is under way, with success or an error; return its transaction."""
        await settle_down()
        transaction, done = self.open.pop()
        written = {group.id: group.entries for group in transaction.inserts}
        written |= {row_id: rest for row_id, rest, _ in transaction.shrinks}
        sizes = {row_id: sum(map(len, entries)) for row_id, entries in written.items()}
        done(SpoolUnavailable(error) if error else sizes)
        await settle_down()
        return transaction

    async def answer_all(self) -> Transaction:
        """Answer until nothing is asked any more; return everything that was ever written."""
        await settle_down()
        while self.open:
            await self.answer()
        together = Transaction()
        for transaction in self.transactions:
            together.absorb(transaction)
        return together


class FakeSink:
    """A `Sink` that holds each bulk until it is answered, or answers all of them by itself.

    Attributes:
        bulks: every bulk that came.
        outcome: its answer for every event; None if the test answers each bulk.
    """

    def __init__(self, outcome: Outcome | None = DELIVERED) -> None:
        self.outcome = outcome
        self.bulks: list[list[Entry]] = []
        self._answers: list[asyncio.Future[list[Outcome]]] = []

    def expect(self, index: str) -> None:
        """Do nothing."""

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        self.bulks.append(entries)
        if self.outcome is not None:
            await asyncio.sleep(0)
            return [self.outcome] * len(entries)
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    def repair(self, entry: Entry) -> Entry:
        return entry

    async def answer(self, number: int, answer: Sequence[Outcome] | BaseException) -> None:
        """Answer the bulk that came as the `number`th."""
        if isinstance(answer, BaseException):
            self._answers[number].set_exception(answer)
        else:
            self._answers[number].set_result(list(answer))
        await settle_down()


LIMITS = GroupLimits(events_max=10, bytes_max=1000)
QUICK = Backoff(0.01, 0.02)


class RecordingWake(Wake):
    """A wake-up that remembers its calls."""

    def __init__(self, interval_s: float = 3600, clock: Clock | None = None) -> None:
        super().__init__(interval_s, loop_of(clock))
        self.heard: list[str] = []

    def pass_now(self) -> None:
        self.heard.append("now")
        super().pass_now()

    def pass_soon(self) -> None:
        if self.is_sink_well:
            self.heard.append("soon")
        super().pass_soon()

    def go_on(self) -> None:
        self.heard.append("on")
        super().go_on()


class Parts:
    """The parts of a pipeline on a test's spool and sink; the test chooses which of them run.

    With a clock, journal, gate, holds and wake-up wait for that.
    """

    def __init__(  # one argument for each choice
        self,
        spool: Any,
        sink: FakeSink | None = None,
        *,
        channel: Channel | None = None,
        limits: GroupLimits = LIMITS,
        in_flight_max: int = 3,
        backoff: Backoff = QUICK,
        holds_backoff: Backoff | None = None,
        delay_s: float = 0.01,
        interval_s: float = 3600,
        bulk_timeout_s: float = 30,
        clock: Clock | None = None,
    ) -> None:
        loop = loop_of(clock)
        self.spool = spool
        self.sink = sink or FakeSink()
        self.counters = Counters()
        self.wake = wake = RecordingWake(interval_s, clock)
        self.evidence = evidence = Evidence()
        self.ledger = ledger = Ledger(spool)
        self.channel = channel = channel or make_channel()
        self.holds = holds = Holds(holds_backoff or backoff, wake, loop)
        self.gate = gate = Gate(in_flight_max, backoff, wake, lambda: channel.events > 0, loop)
        self.journal = journal = Journal(spool, ledger, channel, holds, wake, limits, self.counters, loop)
        self.delivery = Delivery(channel, self.sink, journal, gate, holds, evidence, self.counters)
        deliver = self.delivery.deliver_alone
        self.suspects = Suspects(ledger, journal, deliver, gate, holds, evidence, delay_s, interval_s)
        set_apart = self.suspects.set_apart
        self.trials = Trials(ledger, journal, deliver, gate, holds, set_apart)
        self.redelivery = Redelivery(ledger, journal, channel, holds, evidence, wake, set_apart, self.counters)
        self.requests = Requests(spool, ledger, journal, channel, evidence, wake, bulk_timeout_s)

    @contextlib.asynccontextmanager
    async def running(self, *works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Let some of them run, which none ends by itself."""
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            assert not any(task.done() for task in tasks), "it ended by itself"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


PLENTY = (10**9, 10**9)
"""Bytes and events that no load reaches."""

ONCE = History(1, (900,))


def make_letter(entry: Entry, died_at_ms: int = 1000, history: History = ONCE, reason: str = "reason") -> DeadLetter:
    return DeadLetter(entry, "type", reason, history, died_at_ms)


async def load_all(spool: Spool) -> dict[int, list[Entry]]:
    return {group.id: group.entries for group in await spool.load(0, frozenset(), PLENTY, EVERY)}


@contextlib.asynccontextmanager
async def open_spool(path: Path, repair: Callable[[Entry], Entry] = lambda entry: entry) -> AsyncIterator[Spool]:
    """Own a spool file for a while."""
    spool = Spool(path)
    spool.start(asyncio.get_running_loop(), repair)
    try:
        yield spool
    finally:
        spool.close()
        # Answers that were on their way arrive.
        await settle_down()


async def commit(spool: Spool, transaction: Transaction) -> Mapping[int, int]:
    """Commit a transaction and wait for it."""
    future: asyncio.Future[Mapping[int, int] | SpoolUnavailable] = asyncio.get_running_loop().create_future()
    spool.commit(transaction, future.set_result)
    stored = await asyncio.wait_for(future, PATIENCE_S)
    assert not isinstance(stored, SpoolUnavailable), stored
    return stored


def read_rows(path: Path, statement: str, arguments: Iterable[object] = ()) -> list[tuple[Any, ...]]:
    """Read from a spool file as somebody else would."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement, tuple(arguments)).fetchall()


def assert_ledger_is_true(ledger: Ledger, path: Path) -> None:
    """Compare the ledger with the file and with the groups in memory."""
    rows = dict(read_rows(path, "SELECT id, events FROM groups"))
    ((stored_bytes,),) = read_rows(path, "SELECT coalesce(sum(length(body)), 0) FROM groups")
    assert ledger.stored_events == sum(rows.values())
    assert ledger.stored_bytes == stored_bytes
    assert ledger.loaded.keys() <= rows.keys()
    assert ledger.pending_events == sum(events for row_id, events in rows.items() if row_id not in ledger.loaded)


def assert_state_is_true(state: State, path: Path) -> None:
    """Compare the state of a pipeline that has ended with the file: all of it is pending."""
    ((events, stored_bytes),) = read_rows(
        path, "SELECT coalesce(sum(events), 0), coalesce(sum(length(body)), 0) FROM groups"
    )
    assert (state.stored_events, state.pending_events, state.stored_bytes) == (events, events, stored_bytes)
    assert (state.channel_events, state.channel_bytes) == (0, 0)


def capture_log(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> list[Any]:
    """Return the list that the log lines of modules go to, whatever logging is set up by then."""
    capture = LogCapture()
    wrapper = structlog.make_filtering_bound_logger(0)
    for module in modules:
        monkeypatch.setattr(module, "log", structlog.wrap_logger(None, processors=[capture], wrapper_class=wrapper))
    return capture.entries
