"""Measures two workers against one, in events per second of all processor time that the server uses.

python -m benchmarks.reach.workers

The server may use both cores in either case, and the load shares one of them. So the rate in events/s says nothing
here, and the processor time of supervisor and workers together does.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import load
from benchmarks.candidates import DISK, Candidate, Launch
from benchmarks.processes import LOAD_CORE, SERVER_CORE
from benchmarks.reach import alone
from benchmarks.reach.goals import Finding, Goal, table

if TYPE_CHECKING:
    from pathlib import Path

USERS = 1_000
COUNTS = (1, 2)
PATHS = {
    "single events": load.Load("single_events.lua", "/events", 1, connections=256, seconds=0, warm_up=2),
    "batches": load.Load("batch_events.lua", "/events/batch", 100, connections=16, seconds=0, warm_up=2),
}
GOAL = Goal("two workers against one, events per CPU second", "times", 0.95, 1.0)


def with_workers(count: int) -> Candidate:
    """Return a server of so many workers, on both cores."""

    def command(launch: Launch) -> list[str]:
        return ["taskset", "-c", f"{SERVER_CORE},{LOAD_CORE}", *DISK.command(launch)]

    def environment(launch: Launch) -> dict[str, str]:
        return {**DISK.environment(launch), "FOREBAY_WORKERS": str(count)}

    return Candidate(f"workers-{count}", f"Forebay, {count} workers", command, environment)


def measure(work: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Let one and two workers take turns."""
    runs = []
    for number in range(rounds):
        for name, path in PATHS.items():
            # The order changes, so that neither always comes behind the other.
            for count in COUNTS if number % 2 else reversed(COUNTS):
                run = load.measure(with_workers(count), dataclasses.replace(path, seconds=seconds), work, USERS)
                runs.append({"round": number + 1, "load": name, "workers": count, **run})
    return {"runs": runs}


def findings(result: dict[str, Any]) -> list[Finding]:
    """Return the ratio of each round, for each load."""
    return [Finding(GOAL._replace(title=f"{GOAL.title}, {name}"), _ratios(result, name)) for name in PATHS]


def _ratios(result: dict[str, Any], name: str) -> list[float]:
    one, two = (
        [run["requests_per_cpu_s"] for run in result["runs"] if run["load"] == name and run["workers"] == count]
        for count in COUNTS
    )
    return [mine / alone_ for mine, alone_ in zip(two, one, strict=True)]


if __name__ == "__main__":
    sys.exit(alone.run(measure, lambda result: table(findings(result)), str(__doc__)))
