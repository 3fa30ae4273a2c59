"""Trial: what an interrupted run left is delivered with a strike in its row, for the case that the process ends again.

The strike is written and synced before the delivery, and taken back when that has ended, whatever came of it. It is
written also while the sink is not well: what ends the process may do so in a probe. As no more than a few bulks are on
trial at once, no more than these become suspect by a process that is killed again and again for another reason.
A suspect's own delivery is another matter, as one event may die of it: there a strike is written only while the sink is
well (see `poison.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from forebay.pipeline.gate import Gate, Health

NOBODY: frozenset[int] = frozenset()


class TrialStore(Protocol):
    """The part of the spool that trials are written to."""

    last_group_id: int
    was_interrupted: bool

    async def strike(self, group_ids: Sequence[int]) -> None:
        """Add a strike to each of some rows."""


class Trial:
    """Decides which groups are delivered on trial, and writes it down."""

    def __init__(self, store: TrialStore, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self._left_id = store.last_group_id if store.was_interrupted else 0

    async def begin(self, row_ids: Iterable[int]) -> frozenset[int]:
        """Write a strike for each group that an interrupted run left; return which have one now.

        Raises:
            SpoolUnavailable: nothing was written.
        """
        left = [row_id for row_id in row_ids if row_id <= self._left_id]
        if left:
            await self._store.strike(left)
        return frozenset(left)

    async def begin_alone(self, row_id: int) -> bool:
        """Write a strike for a suspect, whoever left it, if the sink is well; return whether it has one now.

        Raises:
            SpoolUnavailable: nothing was written.
        """
        if self._gate.health is not Health.GOOD:
            return False
        await self._store.strike([row_id])
        return True
