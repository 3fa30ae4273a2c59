"""Whatever the clock does and however often a server starts, a dead letter is there for a day of running time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.history import DeadLetter, History
from forebay.spool import database
from forebay.spool.records import Transaction
from forebay.spool.store import Store
from forebay.spool.upkeep import expiry, retention
from property.memory import make_folder
from unit.pipeline.fakes import make_entry

DAY_MS = retention.DAY_MS
LOOK_MS = int(retention.INTERVAL_S * 1000)
RETENTION_DAYS = 30


class Step(NamedTuple):
    """One step: the clock jumps, a letter dies, the clock is put right, the server starts anew, looks follow."""

    jump_days: int
    dies: bool
    put_right: bool
    restarts: bool
    looks: int


steps = st.builds(
    Step,
    st.sampled_from([0, 0, 0, 1, -1, 31, -31, 45, -45]) | st.integers(-4000, 4000),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0, 1, 140, 150]) | st.integers(0, 160),
)


class World:
    """A spool, the clocks, and when each letter came and went by the time that really passed while a server ran."""

    def __init__(self, path: Path, lag_ms: int) -> None:
        self.store = Store(database.connect(path))
        self.store.connection.execute("PRAGMA synchronous = OFF")
        self.lag_ms = lag_ms
        self.ran_ms = self.looked_at_ms = 0
        self.wall_ms = 2_000_000_000_000
        self.came: dict[str, int] = {}
        self.gone: dict[str, int] = {}

    def run(self, step: Step) -> None:
        self.wall_ms += step.jump_days * DAY_MS
        if step.dies:
            self.pass_time(LOOK_MS // 3)
            letter = DeadLetter(make_entry(f"{len(self.came)}"), "type", "reason", History(1), self.wall_ms)
            self.store.write(Transaction(dead=[letter]))
            self.came[f"{len(self.came)}"] = self.ran_ms
        if step.put_right:
            self.wall_ms -= step.jump_days * DAY_MS
        if step.restarts:
            self.looked_at_ms = self.ran_ms
            self.look()
        for _ in range(step.looks):
            self.pass_time(LOOK_MS + self.lag_ms)
            self.look()

    def pass_time(self, passed_ms: int) -> None:
        self.ran_ms += passed_ms
        self.wall_ms += passed_ms

    def look(self) -> None:
        lowest_ms = expiry.note_clock(self.store, self.ran_ms - self.looked_at_ms, self.wall_ms)
        self.looked_at_ms = self.ran_ms
        if lowest_ms is not None:
            died_before_ms = lowest_ms - RETENTION_DAYS * DAY_MS
            letters = expiry.list_expired(self.store, died_before_ms, 1000)
            expiry.expire(self.store, [letter.id for letter in letters], died_before_ms)
            self.gone |= {letter.log_id: self.ran_ms for letter in letters}


@settings(deadline=None, max_examples=60)
@given(st.lists(steps, min_size=1, max_size=10), st.integers(0, LOOK_MS))
def test_no_letter_goes_within_a_day_of_running_time_and_each_goes_in_the_end(
    all_steps: Iterable[Step], lag_ms: int
) -> None:
    with make_folder() as folder:
        world = World(Path(folder) / "spool.db", lag_ms)
        with contextlib.closing(world.store):
            world.run(Step(0, dies=False, put_right=False, restarts=True, looks=150))
            for step in all_steps:
                world.run(step)
            assert all(world.gone[log_id] - world.came[log_id] >= DAY_MS for log_id in world.gone)
            newest_ms = world.store.connection.execute("SELECT max(died_at_ms) FROM dead_letters").fetchone()[0] or 0
            world.wall_ms = max(world.wall_ms, newest_ms + (RETENTION_DAYS + 1) * DAY_MS)
            world.run(Step(0, dies=False, put_right=False, restarts=False, looks=150))
            assert world.gone.keys() == world.came.keys()
