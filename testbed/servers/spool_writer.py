"""A process that writes to a spool without a pause until it is killed, and prints the number of each commit.

    python -m testbed.servers.spool_writer DATABASE SEED FIRST

Each transaction follows from the seed, its number and those before it, so that a test knows the right content.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

from forebay.errors import SpoolUnavailable
from forebay.history import DeadLetter, History
from forebay.model import Entry
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool

PAGES_BEFORE_CHECKPOINT = 20


class Script:
    """A list of transactions without end, and the content of the spool after them.

    Attributes:
        number: the number of transactions so far.
        rows: the groups by number, each with its events and its history.
        dead: the `log_id` of each dead letter.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._last_id = 0
        self.number = 0
        self.rows: dict[int, tuple[list[Entry], History]] = {}
        self.dead: set[str] = set()

    @property
    def state(self) -> tuple[dict[int, tuple[list[Entry], History]], set[str]]:
        return dict(self.rows), set(self.dead)

    def next(self) -> Transaction:
        """Make the next transaction."""
        self.number += 1
        work = Transaction()
        for row_id in self._chance.sample(sorted(self.rows), min(len(self.rows), self._chance.randrange(4))):
            self._change(work, row_id)
        for _ in range(self._chance.randrange(1, 3)):
            self._last_id += 1
            entries = [self._entry(index) for index in range(self._chance.randrange(1, 30))]
            self.rows[self._last_id] = (entries, History())
            work.inserts.append(NewGroup(self._last_id, entries))
        return work

    def _change(self, work: Transaction, row_id: int) -> None:
        entries, history = self.rows.pop(row_id)
        if self._chance.random() < 0.5:
            work.deletes.append(row_id)
            log_id = f"{self.number}-{row_id}"
            work.dead.append(DeadLetter(self._entry(0, log_id), "type", "reason", history, self.number))
            self.dead.add(log_id)
            return
        history = history.tried(self.number)
        if self._chance.random() < 0.5:
            work.attempts.append((row_id, history))
        else:
            entries = entries[: len(entries) // 2 + 1]
            work.shrinks.append((row_id, entries, history))
        self.rows[row_id] = (entries, history)

    def _entry(self, index: int, log_id: str = "") -> Entry:
        name = log_id or f"{self.number}-{self._last_id}-{index}"
        padding = "x" * self._chance.randrange(400)
        return f'{{"create":{{"_index":"events_test_2026-11","_id":"{name}"}}}}\n{{"x":"{padding}"}}\n'.encode()


async def write_on(path: Path, script: Script) -> None:
    """Commit one transaction after the other, and print the number of each from its callback."""
    loop = asyncio.get_running_loop()
    spool = Spool(path)
    pragma = f"PRAGMA wal_autocheckpoint = {PAGES_BEFORE_CHECKPOINT}"
    spool.submit(lambda store: store.connection.execute(pragma).fetchone())
    spool.start(loop)
    while True:
        work, number = script.next(), script.number
        committed: asyncio.Future[None] = loop.create_future()

        def report(result: Any, number: int = number, committed: asyncio.Future[None] = committed) -> None:
            if isinstance(result, SpoolUnavailable):
                committed.set_exception(result)
                return
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            committed.set_result(None)

        spool.commit(work, report)
        await committed


def main(database: str, seed: str, first: str) -> None:
    """Go on after the last transaction of an earlier process."""
    script = Script(int(seed))
    while script.number < int(first):
        script.next()
    asyncio.run(write_on(Path(database), script))


if __name__ == "__main__":
    main(*sys.argv[1:])
