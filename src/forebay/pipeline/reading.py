"""Reading from the spool: what there is to redeliver."""

from __future__ import annotations

from collections.abc import Container
from typing import Protocol

from forebay.spool.records import StoredGroup

ONE_GROUP = (1, 1)
"""A room in which the spool finds one group, whatever its size."""


class GroupStore(Protocol):
    """The part of the spool that groups are read from."""

    async def load(self, after_id: int, held: Container[int], room: tuple[int, int]) -> list[StoredGroup]:
        """Read the oldest groups behind `after_id` that are not held, within `room` (events, bytes)."""


async def load_group(store: GroupStore, row_id: int, held: Container[int]) -> StoredGroup | None:
    """Read one group; None where it is not there any more, or in memory.

    Raises:
        SpoolUnavailable: it could not be read.
    """
    groups = await store.load(row_id - 1, held, ONE_GROUP)
    return groups[0] if groups and groups[0].id == row_id else None
