"""Measures the bytes that the server has written to disk for an event that the sink takes at once.

python -m benchmarks.reach.written

The kernel counts them for each process (`write_bytes` in /proc/PID/io): log, database and everything else. An event is
counted when it has reached the sink, so its settlement is among the bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks import clients, load, processes
from benchmarks.candidates import DISK
from benchmarks.reach import alone
from benchmarks.reach.goals import Finding, Goal, table

USERS = 1_000
BATCHES = load.Load("batch_events.lua", "/events/batch", 100, connections=16, seconds=0, warm_up=0)
LOADS = {
    "batches": BATCHES,
    "batches, one client": load.Load("batch_events.lua", "/events/batch", 100, connections=1, seconds=0, warm_up=0),
    "single events": load.Load("single_events.lua", "/events", 1, connections=256, seconds=0, warm_up=0),
}
"""The number of clients decides how many events share a commit, and so a row and its pages."""

GOAL = Goal("bytes written for an event, batches of 100", "bytes", 250, 120)


def written_bytes(pid: int) -> int:
    """Return the bytes that a process and its descendants caused to be written to a disk."""
    total = 0
    for each in processes.tree(pid):
        lines = Path(f"/proc/{each}/io").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
    return total


def measure_load(name: str, work: Path, seconds: int) -> dict[str, Any]:
    """Measure one load on a fresh server."""
    wanted = LOADS[name]
    with load.stage(DISK, work, USERS) as on:
        clients.probe(on.launch.port, on.clients[0], wanted.path, wanted.events_per_request)
        passed, _ = load.settle(on.launch, wanted.events_per_request)
        before = written_bytes(on.server.pid)
        result, _ = load.run_wrk(on, wanted, seconds)
        arrived, _ = load.settle(on.launch, passed + wanted.events_per_request * result["requests"])
        after = written_bytes(on.server.pid)
    events = arrived - passed
    return {"load": name, "events": events, "bytes": after - before, "bytes_an_event": round((after - before) / events)}


def measure(work: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Measure every load in each round."""
    event_bytes = round(len(clients.body(0, 100, batch=True)) / 100)
    runs = [{"round": number + 1, **measure_load(name, work, seconds)} for number in range(rounds) for name in LOADS]
    return {"event_bytes": event_bytes, "runs": runs}


def findings(result: dict[str, Any]) -> list[Finding]:
    """Return the bytes of each load; the goal is about batches."""
    return [
        Finding(GOAL._replace(title=f"bytes written for an event, {name}"), _values(result, name)) for name in LOADS
    ]


def _values(result: dict[str, Any], name: str) -> list[float]:
    return [run["bytes_an_event"] for run in result["runs"] if run["load"] == name]


if __name__ == "__main__":
    sys.exit(alone.run(measure, lambda result: table(findings(result)), str(__doc__)))
