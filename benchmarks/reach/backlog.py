"""Measures whether millions of pending events make taking and redelivering others dearer.

python -m benchmarks.reach.backlog

Taking: the pending events are of an index that the sink blocks, so that they stay; new events are of another month,
which it takes. Compared with an empty spool, in events per second of processor time. Redelivering: the sink takes
everything; compared with a spool that holds just enough for one measurement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import clients, filling, load, processes
from benchmarks.candidates import DISK, Candidate, Launch
from benchmarks.processes import BenchmarkError
from benchmarks.reach import alone
from benchmarks.reach.goals import Finding, Goal, table
from forebay.spool import database
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forebay.model import Entry

USERS = 1_000
MANY = 10_000_000
FEW = 600_000
INDEX = "events_bench_2024-01"
"""The index of the pending events; those of the load are of this month."""

SIZES = [1_000, *[100] * 5, *[1] * 20]
"""Most events come in large groups, as they do under load; most rows hold one event."""

PASSED = 50_000
"""Redelivered events before the measurement, while the server starts."""

MEASURED = 300_000
WITHIN_S = 120.0
LOADS = {
    "single events": load.Load("single_events.lua", "/events", 1, connections=256, seconds=0, warm_up=2),
    "batches": load.Load("batch_events.lua", "/events/batch", 100, connections=16, seconds=0, warm_up=2),
}
REDELIVERY = "redelivery"
GOAL = Goal("events per CPU second with 10,000,000 pending against 0", "times", 0.9, 1.0)


def fill(path: Path, events: int) -> None:
    """Write a spool with about so many pending events."""
    made = [make_entry(number) for number in range(max(SIZES))]
    with contextlib.closing(Store(database.connect(path))) as store:
        # Nothing is lost if this ends in the middle: it is made again.
        store.connection.execute("PRAGMA synchronous = OFF")
        for cycle in range(events // sum(SIZES)):
            first = cycle * len(SIZES) + 1
            groups = [NewGroup(first + number, made[:size]) for number, size in enumerate(SIZES)]
            store.write(Transaction(inserts=groups))
    sync(path)


def sync(path: Path) -> None:
    """Let the disk write a file; else the server's first sync would have to."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def make_entry(number: int) -> Entry:
    """Make an entry of the form that Forebay makes."""
    event = clients.event(number)
    log_id = event.pop("log_id")
    document = {
        "@timestamp": "2024-01-02T03:04:05.678Z",
        "received_at": "2024-01-02T03:04:05.789Z",
        "log_id": log_id,
        "user_id": f"user-{number}",
        "event_info": event,
    }
    lines = ({"create": {"_index": INDEX, "_id": log_id}}, document)
    return b"".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines)


def on_spool(path: Path) -> Candidate:
    """Return a server on a spool that is there."""

    def environment(launch: Launch) -> dict[str, str]:
        return {**DISK.environment(launch), "DATABASE_URL": f"sqlite:///{path}", "FOREBAY_SHUTDOWN_TIMEOUT_S": "1"}

    return Candidate("backlog", "Forebay with pending events", DISK.command, environment)


def take(spool: Path, work: Path, wanted: load.Load) -> dict[str, Any]:
    """Measure the taking of new events, on a spool whose pending events stay."""
    with load.stage(on_spool(spool), work, USERS, block=INDEX) as on:
        pending = filling.gauge(on, "forebay_spool_events")
        if pending:
            wait_until_held(on)
        clients.probe(on.launch.port, on.clients[0], wanted.path, wanted.events_per_request)
        load.warm_up(on, wanted)
        result, before = load.run_wrk(on, wanted, wanted.seconds)
        used_s = load.Reading.take(on).server_s - before.server_s
    return {"pending": pending, "per_cpu_s": round(wanted.events_per_request * result["requests"] / used_s)}


def wait_until_held(on: load.Stage) -> None:
    """Wait until the index of the pending events is on hold, and its events have left the channel."""
    deadline = time.monotonic() + WITHIN_S
    while not filling.gauge(on, "forebay_indices_on_hold") or filling.gauge(on, "forebay_channel_events"):
        if time.monotonic() > deadline:
            raise BenchmarkError("the blocked index is not on hold")
        time.sleep(0.1)


def redeliver(spool: Path, work: Path) -> dict[str, Any]:
    """Measure the redelivery of a part of the pending events."""
    with load.stage(on_spool(spool), work, USERS) as on:
        pending = filling.gauge(on, "forebay_spool_events")
        first, first_s = wait_for(on, PASSED)
        last, last_s = wait_for(on, first + MEASURED)
    return {"pending": pending, "per_cpu_s": round((last - first) / (last_s - first_s))}


def wait_for(on: load.Stage, documents: int) -> tuple[int, float]:
    """Wait until so many documents have come; return their number, and the processor time of the server."""
    deadline = time.monotonic() + WITHIN_S
    while (count := load.counted(on.launch)) < documents:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"only {count} events were redelivered")
        time.sleep(0.02)
    return count, processes.cpu_seconds(on.server.pid)


@contextlib.contextmanager
def copied(spool: Path) -> Iterator[Path]:
    """Lend a copy of a spool, which is used up."""
    copy = spool.with_name(f"copy-of-{spool.name}")
    shutil.copyfile(spool, copy)
    sync(copy)
    try:
        yield copy
    finally:
        remove(copy)


def remove(spool: Path) -> None:
    """Delete a spool with the files beside it."""
    for path in spool.parent.glob(f"{spool.name}*"):
        path.unlink()


def measure(work: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Write two spools, and let many and few pending events take turns."""
    many, few, none = (work / f"{name}.db" for name in ("many", "few", "none"))
    began = time.monotonic()
    fill(many, MANY)
    fill(few, FEW)
    made = {"size_mib": round(many.stat().st_size / processes.MIB), "made_in_s": round(time.monotonic() - began)}
    runs = []
    for number in range(rounds):
        for name, wanted in LOADS.items():
            for spool in (none, many) if number % 2 else (many, none):
                run = take(spool, work, dataclasses.replace(wanted, seconds=seconds))
                runs.append({"round": number + 1, "work": name, "many": spool == many, **run})
            remove(none)
        with copied(few) as spool:
            runs.append({"round": number + 1, "work": REDELIVERY, "many": False, **redeliver(spool, work)})
        runs.append({"round": number + 1, "work": REDELIVERY, "many": True, **redeliver(many, work)})
    return {**made, "runs": runs}


def findings(result: dict[str, Any]) -> list[Finding]:
    """Return the ratio of each round, for each kind of work."""
    titles = {name: f"{GOAL.title}, {name}" for name in (*LOADS, REDELIVERY)}
    return [Finding(GOAL._replace(title=title), _ratios(result, name)) for name, title in titles.items()]


def render(result: dict[str, Any]) -> str:
    """Show the findings, and how much was pending."""
    pending = min(run["pending"] for run in result["runs"] if run["many"])
    shown = f"\nThe spool of {result['size_mib']:,} MiB held at least {pending:,} events in each turn.\n"
    return table(findings(result)) + shown


def _ratios(result: dict[str, Any], name: str) -> list[float]:
    with_many, without = (
        [run["per_cpu_s"] for run in result["runs"] if run["work"] == name and run["many"] is many]
        for many in (True, False)
    )
    return [mine / others for mine, others in zip(with_many, without, strict=True)]


if __name__ == "__main__":
    sys.exit(alone.run(measure, render, str(__doc__)))
