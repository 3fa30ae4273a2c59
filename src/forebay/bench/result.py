"""The result of a load, and the limit that it shows. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from forebay.bench.load import Tally

BUSY = 0.85
"""The share of a core from which on a process counts as busy all the time; measuring interrupts it."""

SYNCING = 0.6
"""The share of the time in which the disk syncs from which on it is the limit: the rest is the commit around it."""

BEHIND = 0.9
"""The share of the events taken that a sink must deliver in the same time to keep up."""


class Measurement(NamedTuple):
    """The figures of a load.

    Attributes:
        elapsed_s: its duration.
        server_s: the server's processor time, of all its processes; `load_s` is that of the load.
        busy_share: the share of all processors that was busy, with whatever.
        commits: the commits of the spool.
        delivered: the events that left for the sink.
    """

    elapsed_s: float
    tally: Tally
    server_s: float
    load_s: float
    busy_share: float
    commits: int
    delivered: int
    written_bytes: int
    peak_bytes: int
    sync_s: float


class Machine(NamedTuple):
    """The machine and the settings that it was measured with."""

    cores: int
    workers: int
    has_real_sink: bool


class Result(NamedTuple):
    """The result, one line of JSON."""

    events_per_s: float
    events_per_processor_s: float
    p50_ms: float
    p99_ms: float
    server_cores: float
    load_cores: float
    sync_ms: float
    commits_per_s: float
    written_bytes_per_event: float
    peak_memory_bytes: int
    delivered_per_s: float
    refused_events: int
    limit: str
    advice: str


def evaluate(measured: Measurement, machine: Machine) -> Result:
    """Return the result; there must be some good answers."""
    tally, elapsed_s = measured.tally, measured.elapsed_s
    percentiles = statistics.quantiles(tally.latencies_s * 2, n=100)
    limit, advice = find_limit(measured, machine)
    return Result(
        round(tally.answered / elapsed_s),
        round(tally.answered / max(measured.server_s, 0.01)),
        round(percentiles[49] * 1000, 2),
        round(percentiles[98] * 1000, 2),
        round(measured.server_s / elapsed_s, 2),
        round(measured.load_s / elapsed_s, 2),
        round(measured.sync_s * 1000, 3),
        round(measured.commits / elapsed_s),
        round(measured.written_bytes / tally.answered),
        measured.peak_bytes,
        round(measured.delivered / elapsed_s),
        tally.refused,
        limit,
        advice,
    )


def find_limit(measured: Measurement, machine: Machine) -> tuple[str, str]:
    """Return the limit, and a way to go on."""
    none = "none of these: processor, disk and sink all had time left", "more clients at once"
    return next(_limits_reached(measured, machine), none)


def _limits_reached(measured: Measurement, machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield every limit that was reached, the one that says most first."""
    server, load = measured.server_s / measured.elapsed_s, measured.load_s / measured.elapsed_s
    if machine.has_real_sink and measured.delivered < BEHIND * measured.tally.answered:
        rate = measured.delivered / measured.elapsed_s
        yield (
            f"the sink, which took {rate:,.0f} events/s; the rest waits in the spool",
            "give OpenSearch more, or more bulks at once with FOREBAY_BULK_WORKERS",
        )
    if server >= BUSY * machine.workers:
        yield (
            f"the server's processor, at {server / machine.workers:.0%} of a core for each worker",
            f"one more of the {machine.cores} cores with FOREBAY_WORKERS={machine.workers + 1}"
            if machine.cores > machine.workers
            else "more or faster cores; larger batches cost less for each event",
        )
    syncing = measured.commits * measured.sync_s / measured.elapsed_s / machine.workers
    if syncing >= SYNCING:
        yield (
            f"the disk's sync, with {syncing:.0%} of the time, {measured.sync_s * 1000:.2g} ms each",
            "a disk with faster syncs, more clients at once, or FOREBAY_ACK=memory if a crash may lose events",
        )
    if load >= BUSY:
        yield (
            f"the load itself, at {load:.0%} of a core",
            "the server takes more than one process of clients can send",
        )
    if measured.busy_share >= BUSY:
        yield (
            f"this machine's processors, of which the server had {server:.0%} of a core and the load {load:.0%}",
            "clients elsewhere, and no other programs, leave the server a whole core",
        )
