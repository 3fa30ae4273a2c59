"""The server's own metrics, over all of its workers."""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

import aiohttp

TIMEOUT_S = 5.0
TRIES = 100
RETRY_S = 0.05
SAMPLE = re.compile(r"^(forebay_\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
DELIVERED = re.compile(r'^forebay_outcomes_total\{[^}]*outcome="delivered"[^}]*\} (\S+)$', re.MULTILINE)


class Metrics(NamedTuple):
    """Some of the metrics of the server at one moment."""

    channel_events: int
    spool_events: int
    pending_events: int
    bulks_in_flight: int
    sink_up: bool
    commit_failures: int
    delivered: int
    workers: int
    workers_up: int

    @property
    def is_drained(self) -> bool:
        """Whether every event that the server has is settled."""
        return self.workers_up == self.workers and not (
            self.channel_events or self.spool_events or self.bulks_in_flight
        )


async def scrape(url: str) -> Metrics:
    """Ask a server that serves its metrics without a token; one that is just starting is waited for."""
    for _ in range(TRIES):
        try:
            return _read(await _get(url))
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            await asyncio.sleep(RETRY_S)
    return _read(await _get(url))


async def _get(url: str) -> str:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.get(f"{url}/metrics") as response,
    ):
        return await response.text()


def _read(text: str) -> Metrics:
    samples: dict[str, list[float]] = {}
    for name, value in SAMPLE.findall(text):
        samples.setdefault(name, []).append(float(value))
    return Metrics(
        int(sum(samples["forebay_channel_events"])),
        int(sum(samples["forebay_spool_events"])),
        int(sum(samples["forebay_pending_events"])),
        int(sum(samples["forebay_bulks_in_flight"])),
        min(samples["forebay_sink_up"]) > 0,
        int(sum(samples["forebay_commit_failures_total"])),
        int(sum(map(float, DELIVERED.findall(text)))),
        int(samples.get("forebay_workers", [1])[0]),
        int(samples.get("forebay_workers_up", [1])[0]),
    )
