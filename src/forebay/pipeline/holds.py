"""Holds: indices whose events the sink refuses until an operator acts, while it takes those of others.

A write block, a missing index that may not be created, too many shards: such a refusal is about one index. Its events
stay pending, in the spool, and nothing of them is sent but one group at a time as a probe, whenever a back-off is
over; it doubles with each probe that is refused, up to its cap, with jitter. The first of its events that the sink
settles lifts the hold. All other events flow.

Whether a group waits is decided by the first bytes of its entries, and asked only while there are holds. A group that
holds events of other indices too goes its way, and comes back as what was refused of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple

import structlog

from forebay.model import Entry, Outcome, Verdict, entry_address
from forebay.pipeline.gate import back_off_s

log = structlog.get_logger("forebay.holds")

ROWS_MAX = 100_000
"""How many waiting groups are remembered by number; those beyond are read again at every pass."""


class HoldState(NamedTuple):
    """A hold as it is seen from outside."""

    index_name: str
    since_ms: int
    error_type: str
    reason: str
    advice: str


class Hold:
    """One index on hold.

    Attributes:
        refused: the newest refusal.
        rows: numbers of groups that wait, as far as they are known.
        due: whether its back-off is over, and no probe has gone since.
        probe: the number of the group that went as the last probe.
    """

    def __init__(self, index: str, refused: Outcome, since_ms: int) -> None:
        self.index = index
        self.refused = refused
        self.since_ms = since_ms
        self.failures = 1
        self.rows: set[int] = set()
        self.due = False
        self.probe: int | None = None


class Holds:
    """Which indices are on hold. Belongs to the event loop.

    Attributes:
        on_held: called when there is one hold more.
        on_due: called when a probe may go.
        on_lifted: called when a hold was lifted.
    """

    def __init__(
        self,
        delay_s_min: float,
        delay_s_max: float,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._delay_s_min = delay_s_min
        self._delay_s_max = delay_s_max
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._holds: dict[str, Hold] = {}
        self._prefixes: tuple[bytes, ...] = ()
        self._rows: dict[int, Hold] = {}
        self.on_held: Callable[[], None] = lambda: None
        self.on_due: Callable[[], None] = lambda: None
        self.on_lifted: Callable[[], None] = lambda: None

    def __bool__(self) -> bool:
        return bool(self._holds)

    def __contains__(self, row_id: object) -> bool:
        """Say whether a group is known to wait; any thread may ask."""
        return row_id in self._rows

    @property
    def states(self) -> tuple[HoldState, ...]:
        """Return what there is to see from outside."""
        return tuple(
            HoldState(hold.index, hold.since_ms, hold.refused.error_type, hold.refused.reason, hold.refused.advice)
            for hold in self._holds.values()
        )

    def cover(self, entries: Iterable[Entry]) -> bool:
        """Say whether every one of these events is of an index on hold."""
        return bool(self._holds) and all(entry.startswith(self._prefixes) for entry in entries)

    def keep(self, row_id: int, entries: Sequence[Entry], held: Container[int]) -> bool:
        """Say whether a group has to wait: all its events are of indices on hold, and it is not the next probe.

        `held` are the groups in memory: while the last probe is among them no other goes.
        """
        if not self.cover(entries):
            return False
        hold = self._holds[entry_address(entries[0]).index]
        if hold.due and (hold.probe is None or hold.probe not in held):
            hold.due, hold.probe = False, row_id
            self.forget(row_id)
            return False
        # One with events of two indices would wait for the wrong one once the other is free; it is looked at again.
        if len(self._rows) < ROWS_MAX and all(entry.startswith(_prefix(hold.index)) for entry in entries):
            self._rows[row_id] = hold
            hold.rows.add(row_id)
        return True

    def forget(self, row_id: int) -> None:
        """Take note that a group is not there any more."""
        hold = self._rows.pop(row_id, None)
        if hold is not None:
            hold.rows.discard(row_id)

    def due_rows(self) -> list[int | None]:
        """Return the oldest group of each index whose back-off is over; None where no group is known by number."""
        return [min(hold.rows, default=None) for hold in self._holds.values() if hold.due]

    def learn(self, entries: Sequence[Entry], outcomes: Sequence[Outcome], now_ms: int) -> None:
        """Take note of a bulk of which some events were refused, or any while there are holds."""
        refused: dict[str, Outcome] = {}
        settled: set[str] = set()
        for entry, outcome in zip(entries, outcomes, strict=True):
            if outcome.verdict is Verdict.PAUSE and not outcome.whole:
                refused.setdefault(entry_address(entry).index, outcome)
            elif outcome.settled and entry.startswith(self._prefixes):
                settled.add(entry_address(entry).index)
        held = [self._hold(index, outcome, now_ms) for index, outcome in refused.items()]
        lifted = [self._lift(index) for index in settled - refused.keys()]
        if any(held):
            self.on_held()
        if any(lifted):
            self.on_lifted()

    def _hold(self, index: str, refused: Outcome, now_ms: int) -> bool:
        """Put an index on hold; return whether it was not before."""
        hold = self._holds.get(index)
        if hold is not None:
            hold.refused = refused
            return False
        hold = self._holds[index] = Hold(index, refused, now_ms)
        self._prefixes = tuple(map(_prefix, self._holds))
        self._rest(hold)
        log.warning(
            "index_on_hold",
            index=index,
            cause=f"{refused.error_type}: {refused.reason}",
            advice=refused.advice,
            consequence="its events wait in the spool, all others go on",
        )
        return True

    def _lift(self, index: str) -> bool:
        hold = self._holds.pop(index, None)
        if hold is None:
            return False
        self._prefixes = tuple(map(_prefix, self._holds))
        for row_id in hold.rows:
            del self._rows[row_id]
        log.info("index_released", index=index)
        return True

    def _rest(self, hold: Hold) -> None:
        delay_s = back_off_s(hold.failures, self._delay_s_min, self._delay_s_max)
        self._loop.call_later(self._jitter(delay_s / 2, delay_s), self._come_due, hold)

    def _come_due(self, hold: Hold) -> None:
        """Let a probe go, and set the time for the next one, whatever becomes of this one."""
        if self._holds.get(hold.index) is not hold:
            return
        hold.failures += 1
        hold.due = True
        self._rest(hold)
        self.on_due()


def _prefix(index: str) -> bytes:
    """Return what each entry of an index begins with (`model.encode_entry`)."""
    return b'{"create":{"_index":"%b"' % index.encode()
