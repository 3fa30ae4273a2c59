"""Measures latency at 70 % of the highest load, at a constant arrival rate, against one sync of the same disk.

python -m benchmarks.reach.latency

The generator is our own (`open_loop.c`). It measures from the time at which a request was due. oha, with its latency
correction, measures from the time at which its timer fired, which is later by all that delays oha itself; its timer
fires every millisecond, for several requests at once; and it sends one token. vegeta measures from the sending.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import clients, load, processes
from benchmarks.candidates import DISK, HERE
from benchmarks.machine import sync_times_ms
from benchmarks.processes import LOAD_CORE, BenchmarkError
from benchmarks.reach import alone
from benchmarks.reach.goals import Finding, Goal, table

if TYPE_CHECKING:
    from pathlib import Path

USERS = 1_000
REQUESTS = 5_000
CONNECTIONS = 256
SHARE = 0.7
WARM_UP_S = 2
SPARE_S = 30
LATE_MS_MAX = 0.5
"""A generator that is later than this in a hundredth of its requests has measured itself."""

GOAL = Goal("p99 at 70 % of the highest load, over one sync", "ms", 5, 2)


def build(directory: Path) -> Path:
    """Compile the generator."""
    program = directory / "open_loop"
    subprocess.run(["cc", "-O2", "-o", program, HERE / "reach" / "open_loop.c"], check=True)
    return program


def write_requests(listing: Path, users: list[clients.Client]) -> None:
    """Write whole requests, each with its length before it. They carry no `log_id`: the server makes one for each."""
    with listing.open("wb") as file:
        for number in range(REQUESTS):
            client = users[number % len(users)]
            event = {name: value for name, value in clients.event(number).items() if name != "log_id"}
            body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
            lines = ["POST /events HTTP/1.1", "Host: 127.0.0.1"]
            lines += [f"{name}: {value}" for name, value in client.headers.items()]
            request = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
            file.write(b"%d\n" % len(request) + request)


def drive(program: Path, port: int, requests: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Run the generator once; a rate of 0 is a closed loop."""
    command = [str(program), str(port), str(requests), str(CONNECTIONS), str(rate), str(seconds)]
    shown = subprocess.run(
        processes.pinned(LOAD_CORE, command), capture_output=True, text=True, check=False, timeout=seconds + SPARE_S
    )
    if shown.returncode:
        raise BenchmarkError(f"the generator failed: {shown.stderr}")
    result: dict[str, Any] = json.loads(shown.stdout)
    if result["refused"]:
        raise BenchmarkError(f"not every request was answered with 200: {result}")
    return result


def measure_once(program: Path, work: Path, seconds: int) -> dict[str, Any]:
    """Find the highest load of a fresh server, and measure at a share of it."""
    syncs = sync_times_ms(work)
    with load.stage(DISK, work, USERS) as on:
        clients.probe(on.launch.port, on.clients[0], "/events", 1)
        requests = on.launch.directory / "requests"
        write_requests(requests, on.clients)
        port = on.launch.port
        drive(program, port, requests, 0, WARM_UP_S)
        highest = drive(program, port, requests, 0, seconds)
        rate = SHARE * highest["answered"] / highest["seconds"]
        found = drive(program, port, requests, rate, seconds)
    syncs = sorted(syncs + sync_times_ms(work))
    return {
        "highest_per_s": round(highest["answered"] / highest["seconds"]),
        "rate_per_s": round(rate),
        "sync_p50_ms": round(syncs[len(syncs) // 2], 3),
        "sync_p99_ms": round(syncs[len(syncs) * 99 // 100], 3),
        **found,
    }


def measure(work: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Measure in each round on a fresh server."""
    program = build(work)
    return {"runs": [{"round": number + 1, **measure_once(program, work, seconds)} for number in range(rounds)]}


def findings(result: dict[str, Any]) -> list[Finding]:
    """Return what the 99th percentile adds to the median of a sync."""
    return [Finding(GOAL, [run["p99_us"] / 1000 - run["sync_p50_ms"] for run in result["runs"]])]


def render(result: dict[str, Any]) -> str:
    """Show the findings, and all that they are made of."""
    names = ["round", "highest load/s", "sent/s", "p50 ms", "p99 ms", "p99.9 ms", "sync p50 ms", "sync p99 ms"]
    head = f"| {' | '.join([*names, 'generator late, p99 ms'])} |\n" + "| ---: " * (len(names) + 1) + "|\n"
    return "\n".join([table(findings(result)), head + "".join(map(_row, result["runs"])) + _warning(result)])


def _row(run: dict[str, Any]) -> str:
    counts = f"| {run['round']} | {run['highest_per_s']:,} | {run['rate_per_s']:,} "
    times = [run[name] / 1000 for name in ("p50_us", "p99_us", "p999_us")]
    times += [run["sync_p50_ms"], run["sync_p99_ms"], run["generator_late_p99_us"] / 1000]
    return counts + "".join(f"| {time_ms:.2f} " for time_ms in times) + "|\n"


def _warning(result: dict[str, Any]) -> str:
    if max(run["generator_late_p99_us"] for run in result["runs"]) <= LATE_MS_MAX * 1000:
        return ""
    return "\n**The generator itself was late: other work had its core. Run this again on an idle machine.**\n"


if __name__ == "__main__":
    sys.exit(alone.run(measure, render, str(__doc__)))
