"""The ledger: which rows of the spool are in memory, and how much the spool holds; kept by adding, never by asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from forebay.pipeline.group import Group, Settlement
from forebay.spool.loading import EVERY, Wanted
from forebay.spool.records import StoredGroup, Totals

ONE_GROUP = (1, 1)
"""A room in which the spool finds one group, whatever its size."""

Hear = Callable[[list[StoredGroup]], list[StoredGroup]]


class GroupStore(Protocol):
    """The part of the spool that groups are read from."""

    totals: Totals

    async def load(
        self, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], wanted: Wanted, hear: Hear
    ) -> list[StoredGroup]:
        """Read the oldest wanted groups behind `after_id`, within `room` (events, bytes); see `Spool.load`."""

    async def load_trial(
        self, index: str, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], hear: Hear
    ) -> list[StoredGroup]:
        """Read groups of an index, those first that were never refused; of the others those behind `after_id`."""


class Ledger:
    """Knows each row that is in memory; every other row is pending.

    It changes only with commits that have succeeded, and with reads.

    Attributes:
        loaded: the groups in memory that have a row, by its number.
        set_apart: rows that wait for a bulk of their own; redelivery leaves them out.
        stored_events: events in the spool, in memory or not.
        stored_bytes: the bytes of their rows' bodies on disk.
    """

    def __init__(self, store: GroupStore) -> None:
        self._store = store
        self._released = asyncio.Event()
        self._loaded_events = 0
        self.loaded: dict[int, Group] = {}
        self.set_apart: set[int] = set()
        self.stored_events = store.totals.events
        self.stored_bytes = store.totals.stored_bytes

    @property
    def pending_events(self) -> int:
        """How many events are in the spool and not in memory."""
        return self.stored_events - self._loaded_events

    def store(self, events: int, stored_bytes: int) -> None:
        """Take note of events that are in the spool now."""
        self.stored_events += events
        self.stored_bytes += stored_bytes

    def add(self, group: Group) -> None:
        """Take note that a group of the spool is in memory."""
        if group.row_id is not None:
            self.loaded[group.row_id] = group
            self._loaded_events += len(group.entries)

    def release(self, groups: Iterable[Group]) -> None:
        """Take note that groups left memory with nothing of them settled: their rows are pending as they are."""
        for group in groups:
            if group.row_id is not None and self.loaded.pop(group.row_id, None) is not None:
                self._loaded_events -= len(group.entries)
        self._released.set()

    def settle(self, settlements: Iterable[Settlement], stored_bytes: Mapping[int, int]) -> None:
        """Take note of settlements that are in the spool now, with the bytes of each row that they wrote."""
        for settlement in settlements:
            for row in settlement.transaction.inserts:
                self.store(len(row.entries), stored_bytes[row.id])
            for group in settlement.leaving:
                self._settle_group(group, stored_bytes)
        self._released.set()

    async def wait_released(self, row_ids: Collection[int]) -> None:
        """Wait until none of these groups is in memory."""
        while not self.loaded.keys().isdisjoint(row_ids):
            self._released.clear()
            await self._released.wait()

    def take_up(self, stored: StoredGroup) -> Group:
        """Take a pending group into memory, but not into the channel: it goes in a bulk of its own."""
        group = Group.from_row(stored, is_alone=True)
        self.add(group)
        return group

    async def load(
        self, after_id: int, room: tuple[int, int], wanted: Wanted = EVERY, *, with_set_apart: bool = True
    ) -> list[StoredGroup]:
        """Read the oldest wanted pending groups behind `after_id`, within `room` (events, bytes).

        Whoever takes them into memory does so before anything else is awaited: until then nobody else has them.

        Raises:
            GroupDamaged: the first of them cannot be read.
            SpoolUnavailable: they could not be read.
        """
        left_out = frozenset(self.loaded) if with_set_apart else self.set_apart.union(self.loaded)
        return self._leave_out_loaded(await self._store.load(after_id, left_out, room, wanted, self._leave_out_loaded))

    async def load_trial(self, index: str, after_id: int, room: tuple[int, int]) -> list[StoredGroup]:
        """Read pending groups of an index, those first that were never refused; of the others those behind `after_id`.

        Raises:
            SpoolUnavailable: they could not be read.
        """
        return self._leave_out_loaded(
            await self._store.load_trial(index, after_id, frozenset(self.loaded), room, self._leave_out_loaded)
        )

    async def load_row(self, row_id: int) -> StoredGroup | None:
        """Read one group; None if it is not there any more, or in memory.

        Raises:
            SpoolUnavailable: it could not be read.
        """
        groups = await self.load(row_id - 1, ONE_GROUP)
        return groups[0] if groups and groups[0].id == row_id else None

    def _leave_out_loaded(self, groups: list[StoredGroup]) -> list[StoredGroup]:
        """Return those that have not come into memory while they were read.

        It is asked twice: as soon as the answer is in the event loop, as one step later a group may already be settled,
        and it would come back without a row; and one step later, as somebody else who has read the same group at the
        same time may have taken it.
        """
        return [group for group in groups if group.id not in self.loaded]

    def _settle_group(self, group: Group, stored_bytes: Mapping[int, int]) -> None:
        """Let a group leave memory; the events that are kept in its row are pending from now on."""
        if group.row_id is None or self.loaded.pop(group.row_id, None) is None:
            return
        self._loaded_events -= len(group.entries)
        self.stored_events -= len(group.entries) - len(group.kept)
        if len(group.kept) < len(group.entries):
            self.stored_bytes += stored_bytes.get(group.row_id, 0) - group.stored_bytes
