"""A redelivery with requests, on a spool in memory or a real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from forebay.errors import SpoolUnavailable
from forebay.history import History
from forebay.model import DELIVERED, Entry, Outcome, entry_index
from forebay.pipeline.channel import Channel
from forebay.pipeline.group import UNTRIED, GroupLimits, Settlement
from forebay.pipeline.ledger import Hear
from forebay.pipeline.settlement import settle
from forebay.spool.beside.requests import Burial
from forebay.spool.loading import Wanted
from forebay.spool.records import NewGroup, StoredGroup, Totals, Transaction
from unit.pipeline.fakes import (
    Parts,
    commit,
    make_channel,
    make_entries,
    open_spool,
    until,
)

LIMITS = GroupLimits(events_max=10, bytes_max=1000)
HOUR_S = 3600.0

Done: TypeAlias = Callable[[Mapping[int, int] | SpoolUnavailable], None]


@dataclass
class FakeStore:
    """A spool in memory, whose groups stay until they are removed; it notes each load."""

    groups: dict[int, StoredGroup] = field(default_factory=dict)
    requests: frozenset[str] = frozenset()
    replays: list[list[Entry]] = field(default_factory=list)
    loads: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    during_load: Callable[[], None] = lambda: None
    commits: list[Done] = field(default_factory=list)
    last_group_id: int = 100
    refusal: str = ""
    dead_bytes: int = 0

    def add(self, row_id: int, entries: list[Entry], history: History = UNTRIED) -> None:
        index = entry_index(entries[0])
        self.groups[row_id] = StoredGroup(row_id, index, entries, history, sum(map(len, entries)), 0)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    @property
    def totals(self) -> Totals:
        events = sum(len(group.entries) for group in self.groups.values())
        return Totals(len(self.groups), events, sum(group.stored_bytes for group in self.groups.values()), 0, 0)

    async def load(
        self, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], wanted: Wanted, hear: Hear
    ) -> list[StoredGroup]:
        self.loads.append((after_id, room))
        await asyncio.sleep(0)
        self.during_load()
        self._fail()
        left = room[0]
        found: list[StoredGroup] = []
        for row_id, group in sorted(self.groups.items()):
            is_going = wanted.includes(group.index_name, group.history.refused_status)
            if row_id > after_id and row_id not in left_out and is_going:
                left -= len(group.entries)
                if found and left < 0:
                    break
                found.append(group)
        return hear(found)

    async def load_trial(
        self, index: str, after_id: int, left_out: AbstractSet[int], room: tuple[int, int], hear: Hear
    ) -> list[StoredGroup]:
        raise NotImplementedError

    def commit(self, transaction: Transaction, done: Done, awaited: Sequence[int] = ()) -> None:
        """Leave every commit under way."""
        del transaction, awaited
        self.commits.append(done)

    async def list_burials(self) -> list[Burial]:
        await asyncio.sleep(0)
        return []

    async def take_requests(self) -> frozenset[str]:
        await asyncio.sleep(0)
        self._fail()
        taken, self.requests = self.requests, frozenset()
        return taken

    async def replay(self, group_id: int, events_max: int) -> tuple[int, int]:
        assert events_max > 0
        await asyncio.sleep(0)
        self._fail()
        if not self.replays:
            return 0, 0
        self.add(group_id, self.replays.pop(0))
        return len(self.groups[group_id].entries), self.groups[group_id].stored_bytes


class Bench(Parts):
    """A redelivery with a journal and a channel of its own."""

    def __init__(self, store: Any, channel: Channel | None = None, interval_s: float = HOUR_S) -> None:
        super().__init__(
            store,
            channel=channel or make_channel(events_max=40, bulk_events_max=10),
            limits=LIMITS,
            interval_s=interval_s,
        )
        self.interval_s = interval_s

    @contextlib.asynccontextmanager
    async def run_all(self) -> AsyncIterator[None]:
        """Let redelivery run, and the requests of commands."""
        async with self.running(self.redelivery.run(self.interval_s), self.requests.run()):
            yield

    def deliver(self, outcome: Outcome = DELIVERED) -> list[Entry]:
        """Take a bulk, with one outcome for all of it."""
        bulk = self.channel.take()
        for settlement in settle(bulk, [outcome] * len(bulk.entries), 1000, self.journal.new_id, self.evidence):
            self.journal.settle(settlement)
        return bulk.entries

    async def deliver_all(self) -> list[Entry]:
        """Deliver the channel, and everything that comes into it, until spool and channel are empty."""
        entries: list[Entry] = []
        while self.ledger.stored_events or self.channel.events:
            await until(lambda: self.channel.events)
            entries += self.deliver()
            await self.journal.wait_written()
        return entries


async def fill(path: Path, groups: int, events: int = 10) -> list[Entry]:
    """Make a spool of that many groups, and leave it; return all entries in their order."""
    entries = make_entries(groups * events)
    async with open_spool(path) as spool:
        rows = [NewGroup(row_id, entries[(row_id - 1) * events : row_id * events]) for row_id in range(1, groups + 1)]
        await commit(spool, Transaction(inserts=rows))
    return entries


def leave_in_row(bench: Bench, row_id: int) -> None:
    """Do the part of a commit that has succeeded: a group of which nothing was settled is pending again."""
    group = bench.ledger.loaded[row_id]
    assert len(group.kept) == len(group.entries)
    bench.ledger.settle([Settlement(Transaction(), [group])], {})


def take_up(bench: Bench, stored: StoredGroup) -> None:
    if stored.id not in bench.ledger.loaded:
        bench.ledger.take_up(stored)
