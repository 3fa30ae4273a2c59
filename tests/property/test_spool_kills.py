"""A process that is killed while it writes leaves all that it had answered, and of the rest each transaction whole."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from forebay.spool.loading import EVERY
from testbed.servers.spool_writer import Script
from unit.pipeline.fakes import PLENTY, open_spool, read_rows

ROOT = Path(__file__).parents[2]
KILLS = 8
ANSWERS_BEFORE_KILL = 40
START_TIMEOUT_S = 60.0


def read_lock(database: Path) -> str:
    return database.with_name("spool.db.lock").read_text()


def write_and_kill(database: Path, seed: int, first: int, chance: random.Random) -> int:
    """Let a process write, kill it soon, and return the number of the last transaction that it answered."""
    command = [sys.executable, "-m", "testbed.servers.spool_writer", str(database), str(seed), str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        too_late = threading.Timer(START_TIMEOUT_S, process.kill)
        too_late.start()
        try:
            answered = [int(process.stdout.readline()) for _ in range(chance.randrange(1, ANSWERS_BEFORE_KILL))]
            # A moment within the next transaction, whichever it is.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.random() * 0.003)
            process.kill()
            answered += [int(line) for line in process.stdout.read().splitlines()]
        finally:
            too_late.cancel()
            process.kill()
    assert answered == list(range(first + 1, answered[-1] + 1))
    return answered[-1]


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_process_killed_amid_transactions_leaves_those_it_answered_and_no_part_of_another(
    tmp_path: Path, seed: int
) -> None:
    chance, script = random.Random(seed), Script(seed)
    database = tmp_path / "spool.db"
    for _ in range(KILLS):
        answered = write_and_kill(database, seed, script.number, chance)
        while script.number < answered:
            script.next()
        assert "closed" not in read_lock(database)
        async with open_spool(database) as spool:
            rows = {
                group.id: (group.entries, group.history) for group in await spool.load(0, frozenset(), PLENTY, EVERY)
            }
            totals = spool.totals
        dead = {log_id for (log_id,) in read_rows(database, "SELECT log_id FROM dead_letters")}
        if (rows, dead) != script.state:
            script.next()
        assert (rows, dead) == script.state, "neither the answered transactions nor one more"
        assert (totals.groups, totals.dead_letters) == (len(rows), len(dead))
        assert totals.events == sum(len(entries) for entries, _ in rows.values())
        assert read_rows(database, "PRAGMA integrity_check") == [("ok",)]
