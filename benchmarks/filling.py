"""Measures resident memory while the sink refuses everything and the channel is full."""

from __future__ import annotations

import contextlib
import http.client
from typing import TYPE_CHECKING, Any

from benchmarks import clients, load, processes
from benchmarks.processes import BenchmarkError

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.candidates import Candidate

BATCH = 100


def fill(on: load.Stage, events: int) -> int:
    """Send batches until `events` are accepted; return the bytes that were sent."""
    size = 0
    connection = http.client.HTTPConnection("127.0.0.1", on.launch.port, timeout=30)
    with contextlib.closing(connection):
        for start in range(0, events, BATCH):
            content = clients.body(start, BATCH, batch=True)
            client = on.clients[start // BATCH % len(on.clients)]
            status, answer = clients.post(connection, client, "/events/batch", content)
            if status != http.client.OK:
                raise BenchmarkError(f"after {start} events the server answers {status}: {answer[:500]!r}")
            size += len(content)
    return size


def gauge(on: load.Stage, name: str) -> int:
    """Read one of the server's own metrics."""
    _, shown = processes.get(on.launch.port, "/metrics")
    for line in shown.decode().splitlines():
        if line.startswith(f"{name} "):
            return int(float(line.split()[1]))
    raise BenchmarkError(f"the server has no metric {name}")


def measure(candidate: Candidate, work: Path, events: int, users: int) -> dict[str, Any]:
    """Fill a server whose sink refuses, and read its memory before and after."""
    with load.stage(candidate, work, users, refuse=True) as on:
        empty = processes.memory(on.server.pid).now
        size = fill(on, events)
        full = processes.memory(on.server.pid)
        in_memory, on_disk = gauge(on, "forebay_channel_events"), gauge(on, "forebay_pending_events")
        if load.counted(on.launch):
            raise BenchmarkError("the sink took documents although it should refuse them")
    return {
        "candidate": candidate.name,
        "events": events,
        "channel_events": in_memory,
        "pending_events": on_disk,
        "event_bytes": round(size / events),
        "empty_mib": round(empty, 1),
        "full_mib": round(full.now, 1),
        "peak_mib": round(full.peak, 1),
    }
