"""Measures whether a flood from one sender, held at its limit, makes others wait longer.

Three cases in turn: the others alone, with that sender at its limit, and with its flood. A sender at its limit makes
others wait, too: its events are committed like theirs. The rest is the price of what is refused.

python -m benchmarks.flood [ROUNDS]

The server has a core of its own, and so has the traffic.
"""

from __future__ import annotations

import asyncio
import os
import random
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

SECONDS = 2
ROUNDS = 60
"""Short rounds, and many: a machine or a disk that is slow for a while is slow for each case."""

LEAD_S = 1
"""How long the sender sends before the measure begins: until then its flood has used up its burst."""

BURST_S = 1

BODY = b'{"page": "/home", "event": "click", "label": "button_click"}'


async def measure(
    server: ForebayServer, flooder: ProcessPoolExecutor, per_s: int, seed: int
) -> tuple[list[float], Counter[int]]:
    """Return the times of the others in ms, and the answers to the one that sends so often."""
    flooding = make_request(server.token("flood"), "flood", BODY)
    others = [make_request(server.token(f"user-{number}"), f"device-{number}", BODY) for number in range(OTHERS)]
    # Times at random, as those of clients that know nothing of each other: evenly spread they would never meet, and any
    # event more would meet some. The same in each case of a round.
    chance = random.Random(seed)  # noqa: S311 no secret is made of it
    times_s = [sorted(chance.uniform(0, SECONDS) for _ in range(OTHER_PER_S * SECONDS)) for _ in others]
    task = asyncio.get_running_loop().run_in_executor(flooder, flood_apart, server.port, flooding, per_s)
    await asyncio.sleep(LEAD_S)
    found = await asyncio.gather(
        *(trickle(server.port, request, each) for request, each in zip(others, times_s, strict=True))
    )
    refused = sum((one.statuses - Counter({200: one.statuses[200]})).total() for one in found)
    if refused:
        raise RuntimeError(f"{refused} requests of others were refused")
    return [each * 1000 for one in found for each in one.latencies_s], await task


def give_way() -> None:
    """Run only while nobody else wants the core: those whose time is measured do not wait for the one that floods."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def flood_apart(port: int, request: bytes, per_s: int) -> Counter[int]:
    """Flood the server from a process of its own, so that it is the server alone that can make others wait."""
    return asyncio.run(flood(port, request, per_s, LEAD_S + SECONDS))


def main(rounds: int) -> None:
    """Print each round, the percentiles of all rounds together, and the ratios of the 99th."""
    os.sched_setaffinity(0, {LOAD_CORE})
    found: dict[str, list[float]] = {case: [] for case in CASES}
    settings = {"FOREBAY_TOKEN_RATE_PER_S": str(LIMIT_PER_S), "FOREBAY_RATE_BURST_S": str(BURST_S)}
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        ForebayServer(Path(folder), settings, ["taskset", "-c", str(SERVER_CORE), *COMMAND]) as server,
        ProcessPoolExecutor(1, get_context("spawn"), initializer=give_way) as flooder,
    ):
        server.start()
        for number in range(1, rounds + 1):
            for case, per_s in CASES.items():
                times_ms, answers = asyncio.run(measure(server, flooder, per_s, number))
                found[case] += times_ms
                sys.stdout.write(f"{number} {case}: {show(times_ms)}; {answers[200]} taken, {answers[429]} refused\n")
                sys.stdout.flush()
    p99 = {case: percentile(times_ms, 99) for case, times_ms in found.items()}
    for case, times_ms in found.items():
        over_alone, over_limit = p99[case] / p99["alone"], p99[case] / p99["limit"]
        sys.stdout.write(f"{case}: {show(times_ms)}, {over_alone:.2f} of alone, {over_limit:.2f} of limit\n")


def show(times_ms: list[float]) -> str:
    """Return the percentiles in words."""
    return ", ".join(f"p{per_cent} {percentile(times_ms, per_cent):.2f} ms" for per_cent in (50, 95, 99))


def percentile(times_ms: list[float], per_cent: int) -> float:
    """Return the time that so many of a hundred do not exceed."""
    return sorted(times_ms)[len(times_ms) * per_cent // 100]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
