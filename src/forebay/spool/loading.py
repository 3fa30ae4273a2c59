"""Reads groups back for redelivery: the wanted ones, as many as there is room for, in the form in which they are sent.

Each function is one piece of work in the spool's thread. Groups are chosen without their bodies; only the bodies of
chosen ones are read.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import structlog

from forebay.errors import GroupDamaged
from forebay.model import Entry
from forebay.spool.records import StoredGroup
from forebay.spool.reserve import unless_full
from forebay.spool.statements import SQL
from forebay.spool.store import Store

log = structlog.get_logger("forebay.spool")

KIND = ("index_name", "refused_status")

MALFORMED = 400
"""The status of a refusal after which an event is sent in another form (RFC 9110, section 15.5.1)."""


class Wanted(NamedTuple):
    """A choice of groups, by their index and the status of their last refusal; every group by default.

    Attributes:
        index_name: only groups of this index.
        indices_left_out: no groups of these indices.
        statuses: only groups with one of these statuses; 0 is that of groups that were never refused.
        is_refused: only groups that were refused.
    """

    index_name: str | None = None
    indices_left_out: frozenset[str] = frozenset()
    statuses: frozenset[int] | None = None
    is_refused: bool = False

    def includes(self, index_name: str, refused_status: int) -> bool:
        """Return whether groups of this index with this status are wanted."""
        return (
            self.index_name in (None, index_name)
            and index_name not in self.indices_left_out
            and (self.statuses is None or refused_status in self.statuses)
            and (not self.is_refused or refused_status != 0)
        )


EVERY = Wanted()


def load(
    store: Store, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], wanted: Wanted
) -> list[StoredGroup]:
    """Read the oldest wanted groups behind `after_id` that are not left out, as many as there is room for.

    `room` is in events and bytes. The first group is read whatever its size: it may be one large event, which an empty
    channel takes all the same.

    Raises:
        GroupDamaged: the first group cannot be read. A later one only ends the list.
    """
    kinds = [kind for kind in _list_kinds(store) if wanted.includes(*kind)]
    rows = heapq.merge(*(store.connection.execute(SQL["list_groups"], (*kind, after_id)) for kind in kinds))
    groups: list[StoredGroup] = []
    # Closed here: else an error keeps the queries open as long as somebody has it, and they keep a part of the log.
    with contextlib.closing(rows):
        for group_id in _fit(rows, left_out, room):
            try:
                groups.append(store.read_group(group_id))
            except ValueError as error:
                if groups:
                    break
                damaged = GroupDamaged(group_id, str(error))
                # A full disk must not hide the damage from the caller.
                with unless_full():
                    store.report_once("group_damaged", str(damaged))
                raise damaged from error
    return groups


def load_trial(
    store: Store, index: str, after_id: int, left_out: AbstractSet[int], room: tuple[int, int]
) -> list[StoredGroup]:
    """Read groups of an index: first those that were never refused, then refused ones behind `after_id`.

    The first are read by turns, the newest and the oldest; the others oldest first. Damaged groups are left out too.
    """
    execute = store.connection.execute
    newest = execute(SQL["list_newest_groups"], (index, 0))
    oldest = execute(SQL["list_groups"], (index, 0, 0))
    statuses = [status for name, status in _list_kinds(store) if name == index and status]
    refused = heapq.merge(*(execute(SQL["list_groups"], (index, status, after_id)) for status in statuses))
    by_turns = (row for pair in zip(newest, oldest, strict=False) for row in pair)
    groups: list[StoredGroup] = []
    for group_id in _fit(itertools.chain(by_turns, refused), left_out, room):
        with contextlib.suppress(ValueError):
            groups.append(store.read_group(group_id))
    return groups


def repair_malformed(groups: list[StoredGroup], repair: Callable[[Entry], Entry]) -> list[StoredGroup]:
    """Rewrite the events of groups that were refused as malformed; the event loop has no time for that."""
    return [_repair(group, repair) if group.history.refused_status == MALFORMED else group for group in groups]


def _repair(group: StoredGroup, repair: Callable[[Entry], Entry]) -> StoredGroup:
    try:
        sent = [repair(entry) for entry in group.entries]
    except Exception:
        # A bug of ours must not hold them up: they are sent as they are.
        log.exception("events_not_repaired", group=group.id)
        return group
    pairs = zip(sent, group.entries, strict=True)
    return group._replace(entries=sent, originals={now: before for now, before in pairs if now is not before})


def _list_kinds(store: Store) -> Iterator[tuple[str, int]]:
    """Go through the pairs of an index and a status of refusal that occur among the groups."""
    kind = ("", -1)
    while found := store.connection.execute(SQL["next_kind"], dict(zip(KIND, kind, strict=True))).fetchone():
        kind = found
        yield kind


def _fit(rows: Iterable[tuple[int, int, int]], left_out: AbstractSet[int], room: tuple[int, int]) -> Iterator[int]:
    """Choose groups (number, events, bytes) while there is room, each once; the first is chosen whatever its size."""
    events_left, bytes_left = room
    chosen: set[int] = set()
    for group_id, events, body_bytes in rows:
        if group_id in left_out or group_id in chosen:
            continue
        events_left -= events
        bytes_left -= body_bytes
        if chosen and (events_left < 0 or bytes_left < 0):
            return
        chosen.add(group_id)
        yield group_id
