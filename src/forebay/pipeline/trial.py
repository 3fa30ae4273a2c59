"""Trial: what an interrupted run left is delivered with a strike in its row, for the case that the process ends again.

The strike is written and synced before the delivery. It is taken back when the delivery has ended, or as soon as the
sink is not well: whatever ends the process then is no fault of an event that waits (see `poison.py`).
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
        return await self.strike([row_id for row_id in row_ids if row_id <= self._left_id])

    async def strike(self, row_ids: Sequence[int]) -> frozenset[int]:
        """Write a strike for each of these groups, whoever left them; return which have one now.

        Raises:
            SpoolUnavailable: nothing was written.
        """
        if not row_ids or self._gate.health is not Health.GOOD:
            return NOBODY
        await self._store.strike(row_ids)
        return frozenset(row_ids)
