"""The channel: the bounded queue in memory between intake and delivery, from which bulks are cut.

It is bounded in events and in bytes. Events that it has no room for stay pending in the spool; nothing waits for room
here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from forebay.model import Entry
from forebay.pipeline.group import Bulk, Group, Part


class Limits(NamedTuple):
    """How much the channel holds and when a bulk is due."""

    events_max: int
    bytes_max: int
    bulk_events_max: int
    bulk_bytes_max: int
    bulk_interval_s: float


class Channel:
    """A queue of groups.

    Attributes:
        events: how many events wait.
        entry_bytes: their bytes.
    """

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._limits = limits
        self._loop = loop
        self._groups: deque[Group] = deque()
        self._tail: Group | None = None
        self._due = asyncio.Event()
        self._room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._overdue = False
        self._pressed = False
        self._flushing = False
        self.events = 0
        self.entry_bytes = 0

    def has_room(self, events: int, entry_bytes: int) -> bool:
        """Return whether that much more fits; in an empty channel anything does, so that nothing is too large."""
        if self.events == 0:
            return True
        limits = self._limits
        return self.events + events <= limits.events_max and self.entry_bytes + entry_bytes <= limits.bytes_max

    @property
    def room(self) -> tuple[int, int]:
        """How many events and bytes still fit."""
        return max(0, self._limits.events_max - self.events), max(0, self._limits.bytes_max - self.entry_bytes)

    def offer(self, group: Group) -> bool:
        """Take a group if it fits, whole or not at all."""
        if not self.has_room(len(group.entries), group.entry_bytes):
            self._press()
            return False
        self._append(group)
        self._count(len(group.entries), group.entry_bytes)
        return True

    def add(self, parts: Sequence[Part]) -> bool:
        """Take the events of a request that are only in memory if they fit, whole or not at all.

        They join the newest group while that is small and of their index, so that a hundred thousand single events are
        not as many groups.
        """
        events = entry_bytes = 0
        for part in parts:
            events += len(part.entries)
            entry_bytes += part.entry_bytes
        if not self.has_room(events, entry_bytes):
            self._press()
            return False
        for part in parts:
            tail, limits = self._tail, self._limits
            if tail is None or not tail.take_in(part, limits.bulk_events_max, limits.bulk_bytes_max):
                self._tail = Group(part.index)
                self._tail.extend(part.entries, part.entry_bytes)
                self._append(self._tail)
        self._count(events, entry_bytes)
        return True

    async def wait_due(self) -> None:
        """Wait until a bulk is due: enough events or bytes, no room for more, or an event has waited long enough."""
        while not self._is_due():
            self._due.clear()
            await self._due.wait()

    async def wait_room(self, events: int, entry_bytes: int) -> None:
        """Wait until that much more fits."""
        while not self.has_room(events, entry_bytes):
            self._press()
            self._room.clear()
            await self._room.wait()

    def flush(self) -> None:
        """Let every event be due at once, now and from now on (at shutdown)."""
        self._flushing = True
        self._due.set()

    def take(self, events_max: int | None = None, bytes_max: int | None = None) -> Bulk:
        """Cut the next bulk: as much as the limits allow, at least one event of a channel with any."""
        entries: list[Entry] = []
        slices: list[tuple[Group, Sequence[Entry]]] = []
        events_left = events_max or self._limits.bulk_events_max
        bytes_left = min(bytes_max or self._limits.bulk_bytes_max, self._limits.bulk_bytes_max)
        while self._groups and events_left > 0:
            group = self._groups[0]
            part, part_bytes = _cut(group, events_left, bytes_left, at_least=0 if entries else 1)
            if not part:
                break
            group.cut += len(part)
            entries += part
            slices.append((group, part))
            events_left -= len(part)
            bytes_left -= part_bytes
            self.events -= len(part)
            self.entry_bytes -= part_bytes
            if group.cut < len(group.entries):
                break
            self._remove_first()
        self._pressed = False
        self._room.set()
        self._arm()
        return Bulk(entries, slices)

    def withdraw(self, index: str, *, begun: bool = False) -> list[Group]:
        """Take out the groups of an index of which no bulk has taken a part.

        With `begun` also those of which one has, while none of it is in flight.
        """
        groups = [
            group
            for group in self._groups
            if group.index == index and (not group.cut or (begun and group.open == len(group.entries) - group.cut))
        ]
        if groups:
            gone = set(map(id, groups))
            self._groups = deque(group for group in self._groups if id(group) not in gone)
            if id(self._tail) in gone:
                self._tail = None
            self.events -= sum(len(group.entries) - group.cut for group in groups)
            self.entry_bytes -= sum(len(entry) for group in groups for entry in group.entries[group.cut :])
            self._room.set()
            self._arm()
        return groups

    def bring_forward(self) -> None:
        """Let an event that was never refused be the next one, if there is any: it says most about the sink."""
        for number, group in enumerate(self._groups):
            if not group.history.refused_status:
                del self._groups[number]
                self._groups.appendleft(group)
                return

    def drain(self) -> list[Group]:
        """Take out every group, some of which bulks have taken parts of."""
        groups = list(self._groups)
        self._groups.clear()
        self._tail = None
        self.events = self.entry_bytes = 0
        return groups

    def _append(self, group: Group) -> None:
        group.arrived_at = self._loop.time()
        self._groups.append(group)
        if len(self._groups) == 1:
            self._arm()

    def _count(self, events: int, entry_bytes: int) -> None:
        self.events += events
        self.entry_bytes += entry_bytes
        limits = self._limits
        if self._flushing or self.events >= limits.bulk_events_max or self.entry_bytes >= limits.bulk_bytes_max:
            self._due.set()

    def _press(self) -> None:
        # A channel that is smaller than a bulk would otherwise wait for one that it cannot hold.
        self._pressed = True
        self._due.set()

    def _remove_first(self) -> None:
        # No later arrival may join a group that has left the queue: nobody would ever take it.
        if self._groups.popleft() is self._tail:
            self._tail = None

    def _is_due(self) -> bool:
        if not self.events:
            return False
        limits = self._limits
        return (
            self._overdue
            or self._pressed
            or self._flushing
            or self.events >= limits.bulk_events_max
            or self.entry_bytes >= limits.bulk_bytes_max
        )

    def _arm(self) -> None:
        self._overdue = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._groups:
            when = self._groups[0].arrived_at + self._limits.bulk_interval_s
            self._timer = self._loop.call_at(when, self._come_due)

    def _come_due(self) -> None:
        # The timer alone says that the interval is over. By the loop's clock it may have fired early (uvloop's counts
        # whole milliseconds), and nobody would ask again.
        self._overdue = True
        self._due.set()


def _cut(group: Group, events_max: int, bytes_max: int, at_least: int) -> tuple[list[Entry], int]:
    part = group.entries[group.cut : group.cut + events_max]
    part_bytes = group.entry_bytes if len(part) == len(group.entries) else sum(map(len, part))
    while part_bytes > bytes_max and len(part) > at_least:
        part_bytes -= len(part.pop())
    return part, part_bytes
