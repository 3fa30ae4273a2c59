"""Measures whether a flood from one sender, held at its limit, makes others wait longer: with it and without, in turn.

python -m benchmarks.flood [ROUNDS]

The server has a core of its own, and so has the traffic.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.processes import LOAD_CORE, SERVER_CORE
from testbed.servers.forebay import COMMAND, ForebayServer
from testbed.traffic.flood import flood, make_request, trickle

LIMIT_PER_S = 50
FLOOD_PER_S = 5_000
OTHERS, OTHER_PER_S = 20, 10
SECONDS = 10
ROUNDS = 5
BODY = b'{"page": "/home", "event": "click", "label": "button_click"}'


async def measure(server: ForebayServer, *, is_flooded: bool) -> tuple[float, float, Counter[int]]:
    """Return the median and the 99th percentile of the others, in ms, and the answers to the flood."""
    flooding = make_request(server.token("flood"), "flood", BODY)
    others = [make_request(server.token(f"user-{number}"), f"device-{number}", BODY) for number in range(OTHERS)]
    task = asyncio.create_task(flood(server.port, flooding, FLOOD_PER_S * is_flooded, SECONDS))
    found = await asyncio.gather(
        *(
            trickle(server.port, request, OTHER_PER_S, SECONDS, number / OTHERS / OTHER_PER_S)
            for number, request in enumerate(others)
        )
    )
    times = sorted(each for one in found for each in one.latencies_s)
    refused = sum((one.statuses - Counter({200: one.statuses[200]})).total() for one in found)
    if refused:
        raise RuntimeError(f"{refused} requests of others were refused")
    return times[len(times) // 2] * 1000, times[len(times) * 99 // 100] * 1000, await task


def main(rounds: int) -> None:
    """Print each round, and the ratio of the medians of the 99th percentiles."""
    os.sched_setaffinity(0, {LOAD_CORE})
    p99: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        settings = {"FOREBAY_TOKEN_RATE_PER_S": str(LIMIT_PER_S)}
        with ForebayServer(Path(folder), settings, ["taskset", "-c", str(SERVER_CORE), *COMMAND]) as server:
            server.start()
            for number in range(1, rounds + 1):
                for is_flooded in (False, True):
                    median_ms, p99_ms, flooded = asyncio.run(measure(server, is_flooded=is_flooded))
                    p99[is_flooded].append(p99_ms)
                    text = f"{flooded[200]} taken, {flooded[429]} refused" if is_flooded else "no flood"
                    sys.stdout.write(f"{number}: p50 {median_ms:.2f} ms, p99 {p99_ms:.2f} ms; {text}\n")
                    sys.stdout.flush()
    without, with_it = (statistics.median(p99[is_flooded]) for is_flooded in (False, True))
    sys.stdout.write(f"p99 of the others: {without:.2f} ms, with the flood {with_it:.2f} ms: {with_it / without:.2f}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
