"""The journal: everything that goes to the spool passes here, gathered into one commit at a time.

What arrives while a commit is being synced waits for the next one: submissions of clients, and settlements of bulks.
So the number of syncs follows the disk, not the number of requests, and deletions cost no sync of their own.

Invariants (numbers as in docs/architecture.md):
 1. A submission is told that it was admitted only from the callback of the commit that holds it.
 2. A settlement that could not be committed is kept and tried again; its groups stay held until then.
 5. While settlements of rows wait nothing is redelivered, and while any wait nothing is taken into memory alone: so
    what stays in memory is no more than the channel held, twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from forebay.clock import now_ms
from forebay.errors import SpoolLost, SpoolUnavailable
from forebay.model import Admission, Verdict
from forebay.pipeline.backlog import Backlog
from forebay.pipeline.channel import Channel
from forebay.pipeline.evidence import OWN_FAULT
from forebay.pipeline.group import Group
from forebay.pipeline.holds import Holds
from forebay.pipeline.ledger import Ledger
from forebay.pipeline.packing import GroupLimits, Span, Submission, pack
from forebay.pipeline.settlement import Settlement, abandon
from forebay.spool.records import NewGroup, StoredGroup, Totals, Transaction
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.journal")

RETRY_S = 1.0
"""How long to wait before settlements are written again that the spool could not take."""

FAILURE_REMEMBERED_S = 10.0


class Committer(Protocol):
    """The part of the spool that the journal writes to."""

    last_group_id: int
    totals: Totals
    dead_bytes: int

    @property
    def refusal(self) -> str:
        """Why no events are taken, empty while they are."""

    def commit(
        self,
        transaction: Transaction,
        done: Callable[[Mapping[int, int] | SpoolUnavailable], None],
        *,
        is_awaited: bool,
    ) -> None:
        """Commit, then call `done` in the event loop; `is_awaited` if clients wait for some of it."""


class _Commit(NamedTuple):
    """What is being written."""

    groups: list[Group]
    spans: list[Span]
    settlements: list[Settlement]
    began_at: float

    @property
    def transaction(self) -> Transaction:
        transaction = Transaction(inserts=[NewGroup(group.row_id or 0, group.entries) for group in self.groups])
        for settlement in self.settlements:
            transaction.absorb(settlement.transaction)
        return transaction


class Journal:
    """Writes to the spool. Belongs to the event loop.

    Attributes:
        limits: the most that one row takes.
        ledger: what the spool holds, and what of it is in memory.
        on_overflow: called when events were stored for which the channel had no room.
        on_left: called when events have become pending that a sink may take at the next try.
    """

    def __init__(
        self, spool: Committer, channel: Channel, holds: Holds, limits: GroupLimits, counters: Counters
    ) -> None:
        self._spool = spool
        self._channel = channel
        self._holds = holds
        self.limits = limits
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._last_id = spool.last_group_id
        self._backlog = Backlog()
        self._settling = asyncio.Event()
        self._settling.set()
        self._released = asyncio.Event()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._committing: _Commit | None = None
        self._scheduled = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.ledger = Ledger()
        self.ledger.store(spool.totals.events, spool.totals.stored_bytes)
        self._failure = ""
        self._failed_at = 0.0
        self.on_overflow: Callable[[], None] = lambda: None
        self.on_left: Callable[[], None] = lambda: None

    @property
    def failure(self) -> str:
        """Why the spool takes nothing, or a commit failed lately; empty while commits succeed.

        The latter is forgotten after a while, so that a server which gets no events because it says that it takes none
        finds out when it could.
        """
        failure = self._failure if self._loop.time() - self._failed_at < FAILURE_REMEMBERED_S else ""
        return self.refusal or failure

    @property
    def refusal(self) -> str:
        """Why the spool takes no events, empty while it does."""
        return self._spool.refusal

    @property
    def is_behind(self) -> bool:
        """Whether there are settlements that the spool could not take."""
        return self._backlog.is_behind

    @property
    def spool_bytes(self) -> int:
        """What the spool holds, events and dead letters."""
        return self.ledger.stored_bytes + self._spool.dead_bytes

    def new_id(self) -> int:
        """Return the number of the next row."""
        self._last_id += 1
        return self._last_id

    def new_ids(self, count: int) -> int:
        """Return the first of that many numbers of next rows."""
        first_id = self._last_id + 1
        self._last_id += count
        return first_id

    def submit(self, submission: Submission) -> None:
        """Store the events of a request; it hears of it when they are safe, or that they are not."""
        self._backlog.submissions.append(submission)
        self._schedule()

    def settle(self, settlement: Settlement) -> None:
        """Write what became of a bulk."""
        if settlement.transaction:
            self._backlog.settlements.append(settlement)
            self._schedule()

    def redeliver(self, stored: StoredGroup) -> bool:
        """Put a pending group back into the channel if it fits."""
        group = _group_of(stored)
        if not self._channel.offer(group):
            return False
        self.ledger.hold(group)
        self._counters.redelivered += len(stored.entries)
        return True

    def take_up(self, stored: StoredGroup) -> Group:
        """Take a pending group into memory, but not into the channel: it goes its own way."""
        group = _group_of(stored)
        group.alone = True
        self.ledger.hold(group)
        return group

    def put_back(self, groups: Sequence[Group]) -> None:
        """Let groups leave memory undelivered: those with a row are pending again, the others get one."""
        self.ledger.release(groups)
        self._released.set()
        self.settle(abandon(groups, self.new_id))

    async def wait_released(self, row_ids: Collection[int]) -> None:
        """Wait until none of these groups is in memory."""
        while not self.ledger.held.keys().isdisjoint(row_ids):
            self._released.clear()
            await self._released.wait()

    async def wait_settling(self) -> None:
        """Wait while there are settlements of rows that the spool could not take."""
        await self._settling.wait()

    async def wait_written(self) -> None:
        """Wait until nothing waits to be written (at shutdown)."""
        await self._idle.wait()

    def _schedule(self) -> None:
        # At the end of this round of the loop, so that requests which arrived together are committed together.
        if self._committing is None and not self._scheduled:
            self._scheduled = True
            self._idle.clear()
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        submissions, settlements = self._backlog.take()
        if not submissions and not settlements:
            self._idle.set()
            return
        groups, spans = pack(submissions, self.limits, self.new_id)
        received_at_ms = now_ms()
        for group in groups:
            group.received_at_ms = received_at_ms
        self._committing = _Commit(groups, spans, settlements, time.perf_counter())
        self._spool.commit(self._committing.transaction, self._end, is_awaited=bool(spans))

    def _end(self, result: Mapping[int, int] | SpoolUnavailable) -> None:
        commit, self._committing = self._committing, None
        if commit is None:  # only a spool that answers twice
            return
        self._counters.commits += 1
        self._counters.commit_seconds += time.perf_counter() - commit.began_at
        if isinstance(result, SpoolUnavailable):
            self._refuse(commit, result)
        else:
            self._admit(commit, result)

    def _admit(self, commit: _Commit, stored_bytes: Mapping[int, int]) -> None:
        self._failure = ""
        self._backlog.note_success()
        self._settling.set()
        for group in commit.groups:
            if group.row_id is not None:  # each has one
                group.stored_bytes = stored_bytes[group.row_id]
            self.ledger.store(len(group.entries), group.stored_bytes)
        self.ledger.settle(commit.settlements, stored_bytes)
        self._released.set()
        if any(self._is_left(group) for settlement in commit.settlements for group in settlement.leaving):
            self.on_left()
        created = [self._enter(group) for group in commit.groups]
        for submission, numbers in commit.spans:
            in_channel = created[numbers[0]] and (len(numbers) == 1 or all(created[number] for number in numbers))
            submission.admitted(Admission.CREATED if in_channel else Admission.PENDING)
        self._schedule()

    def _is_left(self, group: Group) -> bool:
        """Return whether a sink may take something of a group at the next try."""
        return group.index not in self._holds and any(
            outcome.verdict is Verdict.RETRY or (outcome.is_own and outcome.status in OWN_FAULT)
            for _, outcome in group.left
        )

    def _enter(self, group: Group) -> bool:
        if group.index in self._holds:
            self._holds.note_fresh(group.index)
            return False
        if self._channel.offer(group):
            self.ledger.hold(group)
            return True
        self._counters.overflowed += len(group.entries)
        self.on_overflow()
        return False

    def _refuse(self, commit: _Commit, error: SpoolUnavailable) -> None:
        self._failure, self._failed_at = str(error), self._loop.time()
        self._counters.commit_failures += 1
        for submission, _ in commit.spans:
            submission.refused(error)
        if isinstance(error, SpoolLost):
            self._give_up(commit.settlements)
            return
        if self._backlog.put_back(self._leave_whole(commit.settlements), had_submissions=bool(commit.spans)):
            self._settling.clear()
        if self._backlog.may_succeed:
            self._schedule()
        else:
            self._retry_later()

    def _leave_whole(self, settlements: list[Settlement]) -> list[Settlement]:
        """Leave rows as they are that were to be parted; return the other settlements.

        A full disk may have no room for more rows for long, and redelivery, which makes some, must go on without
        keeping ever more in memory. What was settled of such a row is sent once more, and is there already.
        """
        parting = [settlement for settlement in settlements if settlement.is_parting]
        self.ledger.release(group for settlement in parting for group in settlement.leaving)
        self._released.set()
        return [settlement for settlement in settlements if not settlement.is_parting]

    def _give_up(self, settlements: list[Settlement]) -> None:
        """Write nothing any more: rows stay as they are and are delivered once more, from what is saved of them.

        Events without a row are tried again from memory, for as long as the process goes on.
        """
        log.error("settlements_not_written", bulks=len(settlements))
        for settlement in self._leave_whole(settlements):
            for group in settlement.transaction.inserts:
                if not self._channel.add(group.entries, sum(map(len, group.entries))):
                    log.error("events_lost", events=len(group.entries), cause="neither spool nor channel has room")
        self._schedule()

    def _retry_later(self) -> None:
        # One timer, however many submissions have made the settlements be tried, and fail, once more.
        if self._retry_timer is None:
            self._retry_timer = self._loop.call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self._schedule()


def _group_of(stored: StoredGroup) -> Group:
    group = Group(stored.entries[0], stored.id, stored.history)
    group.extend(stored.entries, sum(map(len, stored.entries)))
    group.stored_bytes = stored.stored_bytes
    group.originals = stored.originals
    group.received_at_ms = stored.received_at_ms
    return group
