"""The journal: everything that goes to the spool passes here, gathered into one commit at a time.

While a commit is being synced, everything that arrives waits for the next one: submissions of clients, and settlements
of bulks. So the number of syncs follows the disk, not the number of requests, and deletions cost no sync of their own.
On a full disk it is the insertions that fail. So a commit that failed is tried again with less, first without the
submissions, then only with settlements that need no new row: deletions make room.

Invariants (numbers as in docs/architecture.md):
 1. A submission is told that it was admitted only from the callback of the commit that holds it.
 2. A settlement that could not be committed is kept and tried again; its groups stay in memory until then.
 5. While settlements of rows wait nothing is redelivered, and while any wait nothing is taken into memory alone: so
    at most twice the limit of the channel is in memory.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from forebay.clock import now_ms
from forebay.errors import EventsTakenBack, SpoolLost, SpoolUnavailable
from forebay.model import CREATED, PENDING, Verdict, entry_index
from forebay.pipeline.channel import Channel
from forebay.pipeline.evidence import OWN_FAULT
from forebay.pipeline.group import (
    Group,
    GroupLimits,
    PackedSubmission,
    Part,
    Settlement,
    Submission,
    divide,
    pack,
)
from forebay.pipeline.holds import Holds
from forebay.pipeline.ledger import Ledger
from forebay.pipeline.wake import Wake
from forebay.spool.records import NewGroup, Transaction
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.journal")

RETRY_S = 1.0
"""How long to wait before settlements are written again that the spool could not take."""

FAILURE_REMEMBERED_S = 10.0


class Committer(Protocol):
    """The part of the spool that the journal writes to; its attributes are those of `Spool`."""

    last_group_id: int
    dead_bytes: int
    refusal: str

    def commit(
        self,
        transaction: Transaction,
        done: Callable[[Mapping[int, int] | SpoolUnavailable], None],
        awaited: Sequence[int],
    ) -> None:
        """Commit, then call `done` in the event loop; clients wait for the rows `awaited`."""


class RetryScope(enum.Enum):
    """The part of all waiting work that the next commit takes."""

    ALL = "all"
    SETTLEMENTS = "settlements"
    OLD_ROWS = "old rows"  # settlements that change or delete rows, and insert none


class _Commit(NamedTuple):
    """The commit that is under way."""

    groups: list[Group]
    submissions: list[PackedSubmission]
    settlements: list[Settlement]
    began_at: float

    @property
    def transaction(self) -> Transaction:
        transaction = Transaction(inserts=[NewGroup(group.row_id or 0, group.entries) for group in self.groups])
        for settlement in self.settlements:
            transaction.absorb(settlement.transaction)
        return transaction


class Journal:
    """Writes to the spool.

    Attributes:
        limits: the most that one row takes.
        is_behind: whether there are settlements that the spool could not take.
    """

    def __init__(
        self,
        spool: Committer,
        ledger: Ledger,
        channel: Channel,
        holds: Holds,
        wake: Wake,
        limits: GroupLimits,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._channel = channel
        self._holds = holds
        self._wake = wake
        self.limits = limits
        self._counters = counters
        self._loop = loop
        self._last_id = spool.last_group_id
        self._submissions: list[Submission] = []
        self._settlements: list[Settlement] = []
        self._scope = RetryScope.ALL
        self.is_behind = False
        self._settling = asyncio.Event()
        self._settling.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._committing: _Commit | None = None
        self._is_scheduled = False
        self._retry_timer: asyncio.TimerHandle | None = None
        self._failure = ""
        self._failed_at = 0.0

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
    def spool_bytes(self) -> int:
        """The bytes of events and dead letters in the spool."""
        return self._ledger.stored_bytes + self._spool.dead_bytes

    def new_id(self) -> int:
        """Return the number of the next row."""
        self._last_id += 1
        return self._last_id

    def submit(self, submission: Submission) -> None:
        """Store the events of a request; it hears of it when they are safe, or that they are not."""
        self._submissions.append(submission)
        if not self._is_scheduled:
            self._schedule()

    def settle(self, settlement: Settlement) -> None:
        """Write a settlement; groups of which there is nothing to write leave memory at once."""
        if settlement.transaction:
            self._settlements.append(settlement)
            self._schedule()
        else:
            self._ledger.release(settlement.leaving)

    async def wait_settling(self) -> None:
        """Wait while there are settlements of rows that the spool could not take."""
        await self._settling.wait()

    async def wait_written(self) -> None:
        """Wait until nothing waits to be written (at shutdown)."""
        await self._idle.wait()

    def _schedule(self) -> None:
        # At the end of this round of the loop, so that requests which arrived together are committed together.
        if self._committing is None and not self._is_scheduled:
            self._is_scheduled = True
            self._idle.clear()
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._is_scheduled = False
        submissions, settlements = self._take_due()
        if not submissions and not settlements:
            self._idle.set()
            return
        groups, packed = pack(submissions, self.limits, self.new_id)
        received_at_ms = now_ms()
        for group in groups:
            group.received_at_ms = received_at_ms
        self._committing = _Commit(groups, packed, settlements, time.perf_counter())
        awaited = [group.row_id or 0 for group in groups]
        self._spool.commit(self._committing.transaction, self._end, awaited)

    def _take_due(self) -> tuple[list[Submission], list[Settlement]]:
        """Take out the work of the next commit."""
        submissions: list[Submission] = []
        if self._scope is RetryScope.ALL:
            submissions, self._submissions = self._submissions, []
        settlements, self._settlements = self._settlements, []
        if self._scope is RetryScope.OLD_ROWS:
            settlements, self._settlements = divide(settlements)
        return submissions, settlements

    def _end(self, result: Mapping[int, int] | SpoolUnavailable) -> None:
        commit, self._committing = self._committing, None
        if commit is None:  # only a spool that answers twice
            return
        self._counters.commits += 1
        self._counters.commit_seconds += time.perf_counter() - commit.began_at
        if isinstance(result, EventsTakenBack):
            self._refuse_submissions(commit, result)
            self._admit(commit._replace(groups=[], submissions=[]), result.stored_bytes)
        elif isinstance(result, SpoolUnavailable):
            self._refuse(commit, result)
        else:
            self._admit(commit, result)

    def _admit(self, commit: _Commit, stored_bytes: Mapping[int, int]) -> None:
        self._failure = ""
        # Settlements that were left out of this commit could not be written before.
        self.is_behind = self._scope is RetryScope.OLD_ROWS and bool(self._settlements)
        self._scope = RetryScope.ALL
        self._settling.set()
        for group in commit.groups:
            group.stored_bytes = stored_bytes[group.row_id or 0]
            self._ledger.store(len(group.entries), group.stored_bytes)
        self._ledger.settle(commit.settlements, stored_bytes)
        left = [group for settlement in commit.settlements for group in settlement.leaving if group.left]
        if left:
            self._wake.offer_probe()
        if any(map(self._may_be_taken, left)):
            self._wake.pass_soon()
        entered = [self._enter(group) for group in commit.groups]
        have_all_entered = all(entered)
        for submission, numbers in commit.submissions:
            in_channel = have_all_entered or all(entered[number] for number in numbers)
            submission.admitted(CREATED if in_channel else PENDING)
        self._schedule()

    def _may_be_taken(self, group: Group) -> bool:
        """Return whether a sink may take something of a group at the next try."""
        return group.index not in self._holds and any(
            outcome.verdict is Verdict.RETRY or (outcome.is_own and not outcome.whole and outcome.status in OWN_FAULT)
            for _, outcome in group.left
        )

    def _enter(self, group: Group) -> bool:
        """Put a new group into the channel if it may go and fits; return whether it is there."""
        if group.index in self._holds:
            self._holds.note_fresh(group.index)
            return False
        if self._channel.offer(group):
            self._ledger.add(group)
            return True
        self._counters.overflowed += len(group.entries)
        self._wake.go_on()
        return False

    def _refuse_submissions(self, commit: _Commit, error: SpoolUnavailable) -> None:
        self._failure, self._failed_at = str(error), self._loop.time()
        self._counters.commit_failures += 1
        for submission, _ in commit.submissions:
            submission.refused(error)

    def _refuse(self, commit: _Commit, error: SpoolUnavailable) -> None:
        self._refuse_submissions(commit, error)
        if isinstance(error, SpoolLost):
            # Also those that were left out of this commit have to hear of it.
            self._scope = RetryScope.ALL
            self._give_up(commit.settlements)
            return
        settlements = self._leave_unparted(commit.settlements)
        old_rows, new_rows = divide(settlements)
        self._settlements = settlements + self._settlements
        self.is_behind = self.is_behind or bool(settlements)
        if old_rows:
            self._settling.clear()
        # Less than this commit took, or something else, may succeed at once.
        self._scope = RetryScope.ALL
        if commit.submissions and self._settlements:
            self._scope = RetryScope.SETTLEMENTS
        elif old_rows and new_rows:
            self._scope = RetryScope.OLD_ROWS
        elif self._settlements:
            self._retry_later()
            return
        self._schedule()

    def _leave_unparted(self, settlements: list[Settlement]) -> list[Settlement]:
        """Part no rows; return the settlements that are still to be written.

        A full disk may have no room for more rows for long, and redelivery, which makes some, must go on without
        loading ever more into memory.
        """
        unparted = [settlement.without_parting() if settlement.is_parting else settlement for settlement in settlements]
        self._ledger.release(
            group for settlement in unparted if not settlement.transaction for group in settlement.leaving
        )
        return [settlement for settlement in unparted if settlement.transaction]

    def _give_up(self, settlements: list[Settlement]) -> None:
        """Write nothing any more: rows stay as they are and are delivered once more, as far as they are saved.

        Events without a row are tried again from memory, for as long as the process goes on.
        """
        log.error(
            "settlements_not_written",
            bulks=len(settlements),
            consequence="the next start sends these events once more, and they are there already",
        )
        for settlement in self._leave_unparted(settlements):
            for group in settlement.transaction.inserts:
                entries = list(group.entries)
                if not self._channel.add([Part(entry_index(entries[0]), entries, sum(map(len, entries)))]):
                    log.error(
                        "events_lost",
                        events=len(group.entries),
                        cause="neither spool nor channel has room",
                        consequence="they were accepted with ack=memory and are gone",
                    )
        self._schedule()

    def _retry_later(self) -> None:
        # One timer, however many submissions have made the settlements be tried, and fail, once more.
        if self._retry_timer is None:
            self._retry_timer = self._loop.call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self._schedule()
