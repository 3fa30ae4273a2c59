"""Measures whether a flood from one sender, held at its limit, makes others wait longer.

Three cases in turn: the others alone, with that sender at its limit, and with its flood. A sender at its limit makes
others wait, too: its events are committed like theirs. The rest is the price of what is refused.

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
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.processes import LOAD_CORE, SERVER_CORE
from testbed.servers.forebay import COMMAND, ForebayServer
from testbed.traffic.flood import flood, make_request, trickle

LIMIT_PER_S = 50
FLOOD_PER_S = 5_000
CASES = {"alone": 0, "limit": LIMIT_PER_S, "flood": FLOOD_PER_S}
OTHERS, OTHER_PER_S = 20, 10

SECONDS = 4
ROUNDS = 15
"""Short rounds, and many: a disk that is slow for a moment spoils only one, and the median is not moved by it."""

BURST_S = 1
LEAD_S = 2
"""How long the sender sends before the measure begins: until then its burst is used up."""

FLOODER_NICE = 19
"""It gives way to those whose time is measured."""

BODY = b'{"page": "/home", "event": "click", "label": "button_click"}'


async def measure(server: ForebayServer, flooder: ProcessPoolExecutor, per_s: int) -> tuple[list[float], Counter[int]]:
    """Return the times of the others in ms, shortest first, and the answers to the one that sends so often."""
    flooding = make_request(server.token("flood"), "flood", BODY)
    others = [make_request(server.token(f"user-{number}"), f"device-{number}", BODY) for number in range(OTHERS)]
    task = asyncio.get_running_loop().run_in_executor(flooder, flood_apart, server.port, flooding, per_s)
    await asyncio.sleep(LEAD_S)
    found = await asyncio.gather(
        *(
            trickle(server.port, request, OTHER_PER_S, SECONDS, number / OTHERS / OTHER_PER_S)
            for number, request in enumerate(others)
        )
    )
    refused = sum((one.statuses - Counter({200: one.statuses[200]})).total() for one in found)
    if refused:
        raise RuntimeError(f"{refused} requests of others were refused")
    return sorted(each * 1000 for one in found for each in one.latencies_s), await task


def flood_apart(port: int, request: bytes, per_s: int) -> Counter[int]:
    """Flood the server from a process of its own, so that it is the server alone that can make others wait."""
    return asyncio.run(flood(port, request, per_s, LEAD_S + SECONDS))


def main(rounds: int) -> None:
    """Print each round, and the ratios of the medians of the 99th percentiles."""
    os.sched_setaffinity(0, {LOAD_CORE})
    p99: dict[str, list[float]] = {case: [] for case in CASES}
    settings = {"FOREBAY_TOKEN_RATE_PER_S": str(LIMIT_PER_S), "FOREBAY_RATE_BURST_S": str(BURST_S)}
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        ForebayServer(Path(folder), settings, ["taskset", "-c", str(SERVER_CORE), *COMMAND]) as server,
        ProcessPoolExecutor(1, get_context("spawn"), initializer=os.nice, initargs=(FLOODER_NICE,)) as flooder,
    ):
        server.start()
        for number in range(1, rounds + 1):
            for case, per_s in CASES.items():
                times, answers = asyncio.run(measure(server, flooder, per_s))
                p99[case].append(times[len(times) * 99 // 100])
                sys.stdout.write(
                    f"{number} {case}: p50 {statistics.median(times):.2f} ms, p99 {p99[case][-1]:.2f} ms; "
                    f"{answers[200]} taken, {answers[429]} refused\n"
                )
                sys.stdout.flush()
    medians = {case: statistics.median(found) for case, found in p99.items()}
    for case, median in medians.items():
        over_alone, over_limit = median / medians["alone"], median / medians["limit"]
        sys.stdout.write(f"{case}: p99 {median:.2f} ms, {over_alone:.2f} of alone, {over_limit:.2f} of limit\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
