"""Reading from the spool: the groups that there are to redeliver."""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from typing import Protocol

from forebay.spool.records import EVERY, StoredGroup, Wanted

ONE_GROUP = (1, 1)
"""A room in which the spool finds one group, whatever its size."""

Hear = Callable[[list[StoredGroup]], list[StoredGroup]]


class GroupStore(Protocol):
    """The part of the spool that groups are read from."""

    async def load(
        self, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], wanted: Wanted, hear: Hear
    ) -> list[StoredGroup]:
        """Read the oldest wanted groups behind `after_id`, within `room` (events, bytes); see `Spool.load`."""

    async def load_trial(
        self, index: str, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], hear: Hear
    ) -> list[StoredGroup]:
        """Read groups of an index, those first that were never refused; of the others those behind `after_id`."""


async def load_groups(
    store: GroupStore, after_id: int, held: Collection[int], room: tuple[int, int], wanted: Wanted = EVERY
) -> list[StoredGroup]:
    """Read the oldest wanted groups that are not in memory, however that changes while they are read.

    Raises:
        GroupDamaged: the first of them cannot be read.
        SpoolUnavailable: they could not be read.
    """
    leave_out_held = _leave_out(held)
    return leave_out_held(await store.load(after_id, frozenset(held), room, wanted, leave_out_held))


async def load_trial(
    store: GroupStore, index: str, after_id: int, held: Collection[int], room: tuple[int, int]
) -> list[StoredGroup]:
    """Read groups of an index for a trial that are not in memory, however that changes while they are read.

    Raises:
        SpoolUnavailable: they could not be read.
    """
    leave_out_held = _leave_out(held)
    return leave_out_held(await store.load_trial(index, after_id, frozenset(held), room, leave_out_held))


async def load_group(store: GroupStore, row_id: int, held: Collection[int]) -> StoredGroup | None:
    """Read one group; None if it is not there any more, or in memory.

    Raises:
        SpoolUnavailable: it could not be read.
    """
    groups = await load_groups(store, row_id - 1, held, ONE_GROUP)
    return groups[0] if groups and groups[0].id == row_id else None


def _leave_out(held: Collection[int]) -> Hear:
    """Return a filter for groups that have come into memory while they were read.

    It is asked twice: as soon as the answer is in the event loop, as one step later a group may already be settled, and
    it would come back without a row; and one step later, as somebody else who has read the same group at the same time
    may have taken it.
    """
    return lambda groups: [group for group in groups if group.id not in held]
