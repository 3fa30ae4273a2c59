"""Reads health, metrics, log and spools of a running server."""

import asyncio
import contextlib
import json
import sqlite3
import time
import urllib.request
from pathlib import Path
from typing import Any

from testbed.servers.forebay import ForebayServer

WAIT_S = 60.0


def read_metrics(server: ForebayServer) -> dict[str, float]:
    """Return every sample by its name and labels."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:  # noqa: S310 - of a server of ours
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def read_health(server: ForebayServer) -> dict[str, Any]:
    request = urllib.request.Request(f"{server.url}/health/ready")  # noqa: S310 - of a server of ours
    request.add_header("Authorization", f"Bearer {server.token(scope='admin')}")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
        found: dict[str, Any] = json.loads(answer.read())
        return found


def log_lines(server: ForebayServer, event: str) -> list[dict[str, Any]]:
    """Return the lines of the log about one thing."""
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def start_all(server: ForebayServer) -> None:
    """Start a server and wait until every worker serves; the first answers before that."""
    starts = len(log_lines(server, "serving"))
    server.start()
    deadline = time.monotonic() + WAIT_S
    while len(log_lines(server, "serving")) == starts:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.02)


def start_in_vain(server: ForebayServer) -> None:
    # One worker may answer before another is refused.
    server.start()
    server.wait_end()


async def wait_well(server: ForebayServer) -> None:
    """Wait until every worker answers and none is degraded."""
    async with asyncio.timeout(WAIT_S):
        while (await asyncio.to_thread(read_health, server))["status"] != "ready":
            await asyncio.sleep(0.05)


async def wait_worker(server: ForebayServer, number: int, former_pid: int) -> int:
    """Wait until a worker runs in another process than `former_pid`; return its pid."""
    async with asyncio.timeout(WAIT_S):
        while (pid := server.worker_pids.get(number, former_pid)) == former_pid:
            await asyncio.sleep(0.02)
    return pid


async def wait_metric(server: ForebayServer, name: str, wanted: float) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await asyncio.to_thread(read_metrics, server))[name] != wanted:
            await asyncio.sleep(0.05)


def spools(folder: Path) -> list[str]:
    return [name for name in files(folder, "spool*.db") if name != "spool-events.db"]


def files(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


async def wait_spools(folder: Path, wanted: list[str]) -> None:
    async with asyncio.timeout(WAIT_S):
        while spools(folder) != wanted:
            await asyncio.sleep(0.05)


def count_events(spool: Path) -> int:
    with contextlib.closing(sqlite3.connect(spool)) as connection:
        (events,) = connection.execute("SELECT coalesce(sum(events), 0) FROM groups").fetchone()
    return int(events)
