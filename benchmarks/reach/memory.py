"""Measures the server's memory: idle, and with a full channel because the sink refuses everything.

python -m benchmarks.reach.memory

The channel is filled by batches of 100, and then, on a fresh server, by single events of 256 clients.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import filling, load, processes
from benchmarks.candidates import DISK
from benchmarks.processes import MIB, BenchmarkError
from benchmarks.reach import alone
from benchmarks.reach.goals import Finding, Goal, table

if TYPE_CHECKING:
    from pathlib import Path

USERS = 1_000
CHANNEL = 100_000
BULK = 1_000
EVENTS = CHANNEL * 6 // 5
SINGLES = load.Load("single_events.lua", "/events", 1, connections=256, seconds=0, warm_up=0)
FULL_WITHIN_S = 60
MB = 1e6
IDLE = Goal("memory, idle", "MB", 65, 50)
FULL = Goal("memory, channel full", "MB", 140, 110)


def fill_with_batches(on: load.Stage) -> None:
    """Send more events than the channel has room for, a hundred a request."""
    filling.fill(on, EVENTS)


def fill_with_singles(on: load.Stage, seconds: int) -> None:
    """Send single events until the channel is full, but for a bulk that is being tried."""
    deadline = time.monotonic() + FULL_WITHIN_S
    while filling.gauge(on, "forebay_channel_events") < CHANNEL - BULK:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the channel was not full within {FULL_WITHIN_S} s")
        load.run_wrk(on, SINGLES, seconds)


def measure_once(work: Path, singles_s: int) -> dict[str, Any]:
    """Measure a fresh server before and after its channel was filled; `singles_s` of 0 fills it with batches."""
    with load.stage(DISK, work, USERS, refuse=True) as on:
        idle = processes.memory(on.server.pid).now
        if singles_s:
            fill_with_singles(on, singles_s)
        else:
            fill_with_batches(on)
        full = processes.memory(on.server.pid).now
        in_channel = filling.gauge(on, "forebay_channel_events")
    return {
        "filled_by": "single events" if singles_s else "batches",
        "channel_events": in_channel,
        "idle_mb": round(idle * MIB / MB, 1),
        "full_mb": round(full * MIB / MB, 1),
    }


def measure(work: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Fill the channel in both ways in each round."""
    runs = [
        {"round": number + 1, **measure_once(work, singles_s)} for number in range(rounds) for singles_s in (0, seconds)
    ]
    return {"runs": runs}


def findings(result: dict[str, Any]) -> list[Finding]:
    """Return the memory idle, and full in both ways."""
    runs = result["runs"]
    found = [Finding(IDLE, [run["idle_mb"] for run in runs])]
    for way in ("batches", "single events"):
        full = [run["full_mb"] for run in runs if run["filled_by"] == way]
        found.append(Finding(FULL._replace(title=f"{FULL.title} of {way}"), full))
    return found


if __name__ == "__main__":
    sys.exit(alone.run(measure, lambda result: table(findings(result)), str(__doc__)))
