"""Measures one server once: starts it with a sink, drives it with wrk, follows its documents into the sink."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import clients, processes
from benchmarks.candidates import HERE, Candidate, Launch
from benchmarks.processes import LOAD_CORE, SERVER_CORE, BenchmarkError
from testbed.servers.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTLE_WITHIN_S = 120.0
QUIET_S = 1.5
"""Longer than the interval of the bulks, so that the last, incomplete one has passed."""
PROBES = 1
WRK_SPARE_S = 30
PAUSE_S = 1
"""The pause between the connections of wrk and its first request; event.lua gives the reason."""


@dataclass(frozen=True)
class Load:
    """The requests of wrk."""

    script: str
    path: str
    events_per_request: int
    connections: int
    seconds: int
    warm_up: int


@dataclass(frozen=True)
class Stage:
    """A server that is up, with the sink behind it."""

    candidate: Candidate
    launch: Launch
    server: subprocess.Popen[bytes]
    sink: subprocess.Popen[bytes]
    clients: list[clients.Client]


@contextlib.contextmanager
def stage(candidate: Candidate, work: Path, users: int, *, refuse: bool = False, block: str = "") -> Iterator[Stage]:
    """Start a sink and a server with a fresh database; end both and delete the database afterwards.

    The sink may refuse everything, or block one index.
    """
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work)))
        launch = Launch(directory, *free_ports(2))
        sink_command = [clients.PYTHON, str(HERE / "counting_sink.py"), "--port", str(launch.sink_port)]
        sink_command += ["--refuse"] if refuse else []
        sink_command += ["--block", block] if block else []
        sink = stack.enter_context(processes.running(sink_command, core=LOAD_CORE, directory=directory))
        processes.wait_until_up(sink, launch.sink_port)
        server = stack.enter_context(
            processes.running(
                candidate.command(launch),
                core=SERVER_CORE,
                directory=directory,
                environment=candidate.environment(launch),
            )
        )
        processes.wait_until_up(server, launch.port)
        yield Stage(candidate, launch, server, sink, clients.make(users))


def counted(launch: Launch) -> int:
    """Return the number of documents in the sink. It answers between two bulks, so it gets time."""
    status, body = processes.get(launch.sink_port, "/_count", timeout=30)
    assert status == 200, body  # noqa: PLR2004
    count: int = json.loads(body)["count"]
    return count


def start_wrk(on: Stage, load: Load, seconds: int) -> subprocess.Popen[str]:
    """Start wrk, which opens its connections, pauses and then sends for `seconds`."""
    listing = on.launch.directory / "clients"
    clients.write(listing, on.clients)
    url = f"http://127.0.0.1:{on.launch.port}{load.path}"
    options = ["-t1", f"-c{load.connections}", f"-d{seconds + PAUSE_S}s", "--timeout", "10s"]
    return subprocess.Popen(
        processes.pinned(LOAD_CORE, ["wrk", *options, "-s", str(HERE / load.script), url]),
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "LUA_PATH": f"{HERE}/?.lua",
            "BENCH_CLIENTS": str(listing),
            "BENCH_EVENTS": str(load.events_per_request),
            "BENCH_PAUSE_US": str(PAUSE_S * 1_000_000),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_wrk(on: Stage, load: Load, seconds: int) -> tuple[dict[str, Any], Reading]:
    """Run wrk once; return its script's report and the clocks at its first request."""
    wrk = start_wrk(on, load, seconds)
    try:
        time.sleep(PAUSE_S)
        first = Reading.take(on)
        shown, _ = wrk.communicate(timeout=seconds + WRK_SPARE_S)
    finally:
        processes.stop(wrk)
    return checked(on.candidate, wrk.returncode, shown), first


def checked(candidate: Candidate, code: int, shown: str) -> dict[str, Any]:
    """Return the script's last line, decoded, if every request was answered well."""
    lines = [line for line in shown.splitlines() if line.startswith("RESULT ")]
    if code or not lines:
        raise BenchmarkError(f"wrk against {candidate.name} failed:\n{shown}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    if result["refused"] or result["socket_errors"] or not result["requests"]:
        raise BenchmarkError(f"{candidate.name} did not answer every request well: {result}")
    return result


def settle(launch: Launch, expected: int) -> tuple[int, float]:
    """Wait until `expected` documents are in the sink and no more come; return their number and the time they took."""
    start = changed = time.monotonic()
    arrived = counted(launch)
    while (now := time.monotonic()) - start < SETTLE_WITHIN_S:
        if arrived >= expected and now - changed > QUIET_S:
            break
        time.sleep(0.05)
        count = counted(launch)
        if count != arrived:
            arrived, changed = count, time.monotonic()
    return arrived, changed - start


def warm_up(on: Stage, load: Load) -> int:
    """Bring the server to its working speed; return the count of the sink when all these events are in it."""
    result, _ = run_wrk(on, load, load.warm_up)
    return passed_on(on, load.events_per_request * (PROBES + result["requests"]))


def passed_on(on: Stage, accepted: int) -> int:
    """Return the count of the sink when it has all that was accepted so far."""
    if not on.candidate.delivers:
        return 0
    arrived, _ = settle(on.launch, accepted)
    if arrived < accepted:
        raise BenchmarkError(f"{accepted - arrived} of {accepted} events of the warm-up have not reached the sink")
    return arrived


def measure(candidate: Candidate, load: Load, work: Path, users: int) -> dict[str, Any]:
    """Warm a server up, measure it, and follow every accepted event into the sink."""
    with stage(candidate, work, users) as on:
        size, form = load.events_per_request, candidate.form
        clients.probe(on.launch.port, on.clients[0], load.path, size, form=form, checks_token=candidate.checks_token)
        passed = warm_up(on, load)
        result, before = run_wrk(on, load, load.seconds)
        after = Reading.take(on)
        accepted = size * result["requests"]
        expected = passed + accepted
        arrived, drain_s = settle(on.launch, expected) if candidate.delivers else (expected, 0.0)
        peak = processes.memory(on.server.pid).peak
    return {
        "candidate": candidate.name,
        "events_per_request": size,
        "requests_per_s": round(result["requests"] / (result["duration_us"] / 1e6), 1),
        "requests_per_cpu_s": round(result["requests"] / (after.server_s - before.server_s), 1),
        "p50_ms": round(result["p50_us"] / 1000, 2),
        "p99_ms": round(result["p99_us"] / 1000, 2),
        "wrk_sleeps_per_request": round((after.wrk_sleeps - before.wrk_sleeps) / result["requests"], 3),
        "accepted": accepted,
        "missing": max(0, expected - arrived),
        "drain_s": round(drain_s, 2),
        "rss_peak_mib": round(peak, 1),
        **after.shares_since(before),
    }


@dataclass(frozen=True)
class Reading:
    """The clocks of the processes and of both cores at one moment."""

    at: float
    server_s: float
    sink_s: float
    wrk_s: float
    wrk_sleeps: int
    cores: dict[int, processes.CoreTime]

    @classmethod
    def take(cls, on: Stage) -> Reading:
        """Read all clocks."""
        # Of this script's children only wrk ends between two readings, so the time of ended children is wrk's.
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        cores = {core: processes.core_time(core) for core in (SERVER_CORE, LOAD_CORE)}
        used = (processes.cpu_seconds(on.server.pid), processes.cpu_seconds(on.sink.pid))
        return cls(time.monotonic(), *used, ended.ru_utime + ended.ru_stime, ended.ru_nvcsw, cores)

    def shares_since(self, before: Reading) -> dict[str, float]:
        """Turn two readings into shares of a core: of each process, and of everything else on the two cores."""
        seconds = self.at - before.at
        server = (self.server_s - before.server_s) / seconds
        wrk = (self.wrk_s - before.wrk_s) / seconds
        sink = (self.sink_s - before.sink_s) / seconds
        shares = {"server_cpu": server, "wrk_cpu": wrk, "sink_cpu": sink}
        for name, core, ours in (("server_core", SERVER_CORE, server), ("load_core", LOAD_CORE, wrk + sink)):
            now, then = self.cores[core], before.cores[core]
            total = max(1, now.total - then.total)
            shares[f"{name}_others"] = max(0.0, (now.busy - then.busy) / total - ours)
            shares[f"{name}_stolen"] = (now.stolen - then.stolen) / total
        return {name: round(share, 3) for name, share in shares.items()}
