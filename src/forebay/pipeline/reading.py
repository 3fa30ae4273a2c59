"""Reading from the spool: what there is to redeliver."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Protocol

from forebay.spool.records import StoredGroup

ONE_GROUP = (1, 1)
"""A room in which the spool finds one group, whatever its size."""


class GroupStore(Protocol):
    """The part of the spool that groups are read from."""

    async def load(
        self, after_id: int, held: Container[int], room: tuple[int, int], is_wanted: Callable[[str, int], bool]
    ) -> list[StoredGroup]:
        """Read the oldest groups behind `after_id` that are not held, within `room` (events, bytes).

        `is_wanted` is asked with an index and the status of the last refusal, 0 if there was none.
        """

    async def load_trial(
        self, index: str, after_id: int, held: Container[int], room: tuple[int, int]
    ) -> list[StoredGroup]:
        """Read groups of an index, those first that were never refused; of the others those behind `after_id`."""


async def load_group(store: GroupStore, row_id: int, held: Container[int]) -> StoredGroup | None:
    """Read one group; None where it is not there any more, or in memory.

    Raises:
        SpoolUnavailable: it could not be read.
    """
    groups = await store.load(row_id - 1, held, ONE_GROUP, lambda _index, _status: True)
    return groups[0] if groups and groups[0].id == row_id else None
