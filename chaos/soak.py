"""Puts a mixed load on real processes for a long time, with faults at random, and compares everything at the end.

Run it as `make soak`, or with `--help` for its options.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script finds only its own directory

from chaos import document, results, setting  # noqa: E402 - behind the path
from chaos.comparison import Comparison, compare  # noqa: E402
from chaos.faults.clock import give_clock  # noqa: E402
from chaos.faults.refusals import STRICT  # noqa: E402
from chaos.mixture import Mixture  # noqa: E402
from chaos.sampling import ProcessRun, Sampler, find_trend, judge  # noqa: E402
from chaos.troubles import ENDINGS, TROUBLES, Trouble  # noqa: E402
from testbed.servers.faulty_proxy import FaultyProxy  # noqa: E402
from testbed.servers.opensearch import OpenSearchServer  # noqa: E402
from testbed.servers.opensearch_admin import Template  # noqa: E402
from testbed.servers.server_process import START_TIMEOUT_S  # noqa: E402
from testbed.servers.shaky_forebay import ShakyForebay  # noqa: E402
from testbed.traffic.index import Index  # noqa: E402

SETTINGS = {
    "SERVER_ENVIRONMENT": "soak",
    # Small enough to be full in every outage: memory comes to its highest soon, and only a leak makes it grow further.
    "FOREBAY_CHANNEL_EVENTS_MAX": "10000",
    "FOREBAY_BULK_INTERVAL_S": "1",
    "FOREBAY_BULK_TIMEOUT_S": "5",
    "FOREBAY_RETRY_DELAY_S_MAX": "5",
    "FOREBAY_RETRY_INTERVAL_S": "10",
    "FOREBAY_METRICS_OPEN": "true",
    "FOREBAY_LOG_FORMAT": "json",
}
PROCESSES = 2
"""The number of server processes in one soak: a process that runs only briefly shows no leak."""

STRICT_S = 30.0
"""The time with somebody else's strict template, at the beginning: later the month's index would hold events, and could
not be deleted."""

CALM_S = (3.0, 10.0)
TROUBLE_S_MAX = 60.0 + START_TIMEOUT_S
"""In some of them OpenSearch starts, and may take its time on a busy machine."""

DRAIN_S_MAX = 300.0
POLL_S = 0.2
TOKEN_S = 30 * 86_400
"""Tokens outlive the clocks that are put ahead."""


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="length of the run (30)")
    parser.add_argument("--rate", type=float, default=800, help="events a second (800)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "chaos", help="directory of the spool")
    return parser.parse_args()


def main() -> int:
    """Run the soak; return 1 if an event was lost or duplicated, or not settled in time."""
    options = read_options()
    # Leaving by an exception, not at once, lets every block end the process that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.work.mkdir(parents=True, exist_ok=True)
    header = setting.describe(options.work)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.work)))
        opensearch = stack.enter_context(OpenSearchServer(OpenSearchServer.install()))
        opensearch.start()
        proxy = stack.enter_context(FaultyProxy(opensearch.url))
        settings = {**SETTINGS, **give_clock(folder), "OPEN_SEARCH_DNS": proxy.url}
        server = stack.enter_context(ShakyForebay(folder, settings))
        soak = asyncio.run(Soak(server, opensearch, proxy, options.rate).run(options.minutes * 60))
    results.write(results.SOAK, {**soak, "header": header})
    document.write()
    print(soak["summary"], soak["verdict"], sep="\n")
    return 0 if soak["passed"] else 1


class Soak:
    """One run."""

    def __init__(self, server: ShakyForebay, opensearch: OpenSearchServer, proxy: FaultyProxy, rate: float) -> None:
        self._server = server
        self._rate = rate
        self._mixture = Mixture(server, opensearch, proxy, rate, server.token(lifetime_s=TOKEN_S))
        self._index = Index(opensearch.url, SETTINGS["SERVER_ENVIRONMENT"])
        self._template = Template(opensearch.url, SETTINGS["SERVER_ENVIRONMENT"], STRICT)
        self._sampler = Sampler(lambda: server.pid if server.is_running else None)
        self._troubles: Counter[str] = Counter()
        self._random = random.SystemRandom()

    async def run(self, length_s: float) -> dict[str, Any]:
        """Load, trouble, drain, compare; return the results."""
        began_at = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            async with self._template:
                await asyncio.to_thread(self._server.start)
                sampling = tasks.create_task(self._sampler.run())
                sending = tasks.create_task(self._mixture.run())
                await self._be_strict()
            await self._index.remove()
            await self._make_trouble(began_at, length_s)
            self._mixture.stop()
            await asyncio.wait_for(sending, TROUBLE_S_MAX)
            drain_s = await self._drain()
            sampling.cancel()
        self._sampler.end_run("the run was over")
        await self._index.count()
        found = await compare(self._mixture.taken, self._index, self._server)
        return self._report(found, time.monotonic() - began_at, drain_s)

    async def _be_strict(self) -> None:
        """Wait while the month's index takes no event."""
        self._troubles["strict template"] += 1
        await asyncio.sleep(STRICT_S)
        if taken := await self._index.count():
            raise RuntimeError(f"the index with the strict template has taken {taken} events")

    async def _make_trouble(self, began_at: float, length_s: float) -> None:
        process_began_at = began_at
        while time.monotonic() < began_at + length_s:
            await asyncio.sleep(self._random.uniform(*CALM_S))
            is_old = time.monotonic() - process_began_at > length_s / PROCESSES
            name, trouble = self._random.choice(sorted((ENDINGS if is_old else TROUBLES).items()))
            print(f"{time.monotonic() - began_at:6.0f} s  {len(self._mixture.taken):9,} events  {name}", flush=True)
            if is_old:
                self._sampler.end_run(name)
            await self._trouble(name, trouble)
            if is_old:
                process_began_at = time.monotonic()

    async def _trouble(self, name: str, trouble: Trouble) -> None:
        self._troubles[name] += 1
        async with asyncio.timeout(TROUBLE_S_MAX):
            await trouble(self._mixture)

    async def _drain(self) -> float | None:
        """Wait until everything is settled; return the seconds, or None if it took too long."""
        began_at = time.monotonic()
        while time.monotonic() < began_at + DRAIN_S_MAX:
            if (await self._mixture.metrics()).is_drained:
                return time.monotonic() - began_at
            await asyncio.sleep(POLL_S)
        return None

    def _report(self, found: Comparison, took_s: float, drain_s: float | None) -> dict[str, Any]:
        mixture = self._mixture
        answers = ", ".join(f"{status}: {count:,}" for status, count in sorted(mixture.answers.items()))
        summary = {
            "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "length": f"{took_s / 60:.0f} minutes, {self._rate:,.0f} events/s asked for",
            "accepted": f"{len(mixture.taken):,} events, {mixture.acknowledged_from_memory:,} with `ack=memory`",
            "refused as bad": f"{mixture.refused:,}",
            "answers to clients": f"{answers}, no answer: {mixture.connection_errors:,}, "
            f"events sent again: {mixture.resent:,}",
            "faults": ", ".join(f"{name} {count}" for name, count in sorted(self._troubles.items())),
            "lost": f"{len(found.lost):,}",
            "duplicated": f"{len(found.duplicated):,}",
            "dead letters": f"{len(found.dead):,}",
            "everything in OpenSearch": "not in time" if drain_s is None else f"{drain_s:.1f} s after the load",
        }
        warm = self._sampler.warm
        return {
            "passed": not found.lost and not found.duplicated and not found.dead and drain_s is not None,
            "summary": summary,
            "verdict": judge(
                find_trend([(sample.at_s, sample.resident_mb) for sample in warm]),
                find_trend([(sample.at_s, sample.files) for sample in warm]),
            ),
            "lives": [_describe(number, run) for number, run in enumerate(self._sampler.runs, start=1)],
        }


def _describe(number: int, run: ProcessRun) -> list[str]:
    samples = run.samples
    memory = find_trend([(sample.at_s, sample.resident_mb) for sample in samples])
    files = find_trend([(sample.at_s, sample.files) for sample in samples])
    start = [f"{number}", *run.ending, f"{samples[-1].age_s if samples else 0:.0f}", f"{len(samples)}"]
    if memory is None or files is None:
        return [*start, *["-"] * 6]
    return [
        *start,
        *(f"{value:.0f}" for value in (memory.first, memory.last)),
        f"{memory.slope:+.0f}",
        *(f"{value:.0f}" for value in (files.first, files.last, files.most)),
    ]


if __name__ == "__main__":
    sys.exit(main())
