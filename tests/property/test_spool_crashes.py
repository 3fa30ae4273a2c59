"""A spool that dies between any two steps, or loses its power, holds each transaction whole or not at all.

The state machine of `test_spool.py` runs as it does there, and the spool's files are copied before each of SQLite's
statements and before each answer. A copy, opened again, must equal the spool before the step
or after it; once the step was answered, the spool after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from forebay.spool.beside.inspection import inspect
from forebay.spool.beside.requests import Request
from forebay.spool.spool import Spool
from property.memory import make_folder
from property.test_spool import SpoolMachine
from testbed.servers.power_cut import Files, cut_checkpoint, cut_commit

PAGES_BEFORE_CHECKPOINT = 12
"""So few that many commits are followed by a checkpoint."""

TABLES = ("groups", "dead_letters", "requests")
TOTALS = "SELECT groups, events, stored_bytes, dead_letters, dead_bytes FROM totals"

State = dict[str, list[tuple[Any, ...]]]

connect = sqlite3.connect


class Moment(NamedTuple):
    """The files at one moment, and whether the step had been answered by then."""

    files: Files
    answered: bool


class Listener:
    """Stands between the spool's thread and the event loop, to see the files before an answer is heard."""

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        self._loop = loop
        self._look = look

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: object) -> None:
        self._look()
        self._loop.call_soon_threadsafe(callback, *arguments)


class CrashingSpoolMachine(SpoolMachine):
    """The spool of `SpoolMachine`, with the files that its death would leave at every moment."""

    def __init__(self) -> None:
        self.watching = False
        self.moments: list[Moment] = []
        self.requests: set[str] = set()
        self.chance = random.Random(0)
        self.lives = 0
        self.left = make_folder()
        self.tracing = unittest.mock.patch("sqlite3.connect", self.connect)
        self.tracing.start()
        super().__init__()
        self.state = read_state(self.path)
        self.files = Files.read(self.path)
        self.watching = True

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda _: self.look(answered=False))
        return connection

    def open(self) -> None:
        self.spool = Spool(self.path)
        listener = Listener(self.loop, lambda: self.look(answered=True))
        self.spool.start(cast("asyncio.AbstractEventLoop", listener))
        pragma = f"PRAGMA wal_autocheckpoint = {PAGES_BEFORE_CHECKPOINT}"
        self.run(self.spool.call(lambda store: store.connection.execute(pragma).fetchone()))

    def teardown(self) -> None:
        self.watching = False
        try:
            super().teardown()
        finally:
            self.left.cleanup()
            self.tracing.stop()

    def look(self, *, answered: bool) -> None:
        """Remember the files as they are now."""
        if self.watching:
            moment = Moment(Files.read(self.path), answered or any(moment.answered for moment in self.moments))
            if moment not in self.moments:
                self.moments.append(moment)

    @rule(request=st.sampled_from(Request))
    def ask(self, request: Request) -> None:
        with inspect(self.path) as inspection:
            inspection.ask(request)
        self.requests.add(request)

    @rule()
    def take_requests(self) -> None:
        assert self.run(self.spool.take_requests()) == self.requests
        self.requests.clear()

    @rule()
    def die_and_go_on(self) -> None:
        """Go on with a copy of the files, as the next process does after a power cut."""
        self.watching = False
        files = Files.read(self.path)
        self.close()
        self.lives += 1
        self.path = self.path.with_name(f"spool-{self.lives}.db")
        files.write(self.path)
        self.open()
        self.files = Files.read(self.path)
        self.watching = True

    @invariant()
    def file_equals_the_dictionaries(self) -> None:
        super().file_equals_the_dictionaries()
        self.watching = False
        state, files = read_state(self.path), Files.read(self.path)
        before = self.files
        for moment in self.moments:
            # The files of an answer hold all of it; any other may hold it or not.
            either = () if moment.answered else (self.state,)
            self.expect(moment.files, state, *either)
            for left in cut_commit(before, moment.files, self.chance):
                self.expect(left, state, self.state)
            for left in cut_checkpoint(before, moment.files, self.chance):
                self.expect(left, state, *either)
            before = moment.files
        self.state, self.files, self.moments = state, files, []
        self.watching = True

    def expect(self, files: Files, *states: State) -> None:
        path = Path(self.left.name) / "spool.db"
        files.write(path)
        try:
            with contextlib.closing(Spool(path)):
                found = read_state(path)
        finally:
            for file in Path(self.left.name).iterdir():
                file.unlink()
        assert found in states, "a part of a transaction is there, or an answered one is missing"


def read_state(path: Path) -> State:
    """Return all that a spool holds, having looked whether it is sound."""
    with contextlib.closing(connect(path)) as spool:
        assert spool.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        state: State = {table: spool.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in TABLES}  # noqa: S608
        state["totals"] = spool.execute(TOTALS).fetchall()
    return state


CrashingSpoolMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestSpoolCrashes = CrashingSpoolMachine.TestCase
