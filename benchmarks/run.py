"""Measures Forebay against a plain collector, keeps the raw numbers and writes docs/benchmarks.md from them.

Run it as `make bench`, or with `--help` for its options.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script finds only its own directory

from benchmarks import clients, filling, load, machine, report
from benchmarks.candidates import ALL, FOREBAY, INTERVAL_S, PLAIN_PYTHON, ROOT, install_plain
from benchmarks.processes import LOAD_CORE, SERVER_CORE, BenchmarkError

RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PARTS = ("singles", "batches", "memory")
BATCH_CONNECTIONS = 16


def choice(allowed: tuple[str, ...]) -> Any:
    """Make a reader of comma-separated names."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(allowed)}")
        return names

    return read


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=choice(tuple(ALL)), default=list(ALL), help=f"candidates: {','.join(ALL)}")
    parser.add_argument("--parts", type=choice(PARTS), default=list(PARTS), help=f"parts: {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of single events (5)")
    parser.add_argument("--batch-rounds", type=int, default=3, help="rounds of batches (3)")
    parser.add_argument("--seconds", type=int, default=8, help="length of each measurement (8)")
    parser.add_argument("--warm-up", type=int, default=2, help="seconds before each measurement (2)")
    parser.add_argument("--connections", type=int, default=256, help="connections of wrk (256)")
    parser.add_argument("--users", type=int, default=1_000, help="different tokens (1000)")
    parser.add_argument("--fill", type=int, default=120_000, help="events of the memory measurement (120000)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench", help="directory of the databases")
    parser.add_argument("--render", action="store_true", help="only write the page again from the kept numbers")
    return parser.parse_args()


def rotated(names: list[str], turn: int) -> list[str]:
    """Move the order on, so that no candidate always has the same neighbour before it."""
    start = turn % len(names)
    return names[start:] + names[:start]


def rounds(names: list[str], count: int, turn: Any) -> list[dict[str, Any]]:
    """Let the candidates take turns."""
    runs = []
    for number in range(count):
        for name in rotated(names, number):
            run = {"round": number + 1, **turn(ALL[name])}
            runs.append(run)
            print(f"round {number + 1}: {json.dumps(run)}", flush=True)
    return runs


def measure_parts(options: argparse.Namespace, work: Path) -> dict[str, list[dict[str, Any]]]:
    """Take the measurements that were asked for."""
    forebay = [candidate.name for candidate in FOREBAY if candidate.name in options.only]
    single = load.Load("single_events.lua", "/events", 1, options.connections, options.seconds, options.warm_up)
    batch = load.Load(
        "batch_events.lua", "/events/batch", filling.BATCH, BATCH_CONNECTIONS, options.seconds, options.warm_up
    )
    plan = {
        "singles": (options.only, options.rounds, lambda it: load.measure(it, single, work, options.users)),
        "batches": (forebay, options.batch_rounds, lambda it: load.measure(it, batch, work, options.users)),
        "memory": (forebay, 1, lambda it: filling.measure(it, work, options.fill, options.users)),
    }
    return {part: rounds(*plan[part]) if part in options.parts and plan[part][0] else [] for part in PARTS}


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the measurement."""
    return {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "warm_up": options.warm_up,
        "connections": options.connections,
        "batch_connections": BATCH_CONNECTIONS,
        "batch_size": filling.BATCH,
        "users": options.users,
        "interval": INTERVAL_S,
        "event_bytes": round(len(clients.body(0, 100, batch=True)) / 1000) * 10,
        "server_core": SERVER_CORE,
        "load_core": LOAD_CORE,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure and return everything that the page shows."""
    start = time.monotonic()
    install_plain()
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as directory:
        work = Path(directory)
        described = {"machine": machine.describe(work), "versions": machine.versions(PLAIN_PYTHON)}
        parts = measure_parts(options, work)
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "minutes": round((time.monotonic() - start) / 60),
        **described,
        "settings": settings(options),
        **parts,
    }


def keep(results: dict[str, Any]) -> None:
    """Write the numbers and the page."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(report.render(results))


def complete(options: argparse.Namespace) -> bool:
    """Return whether everything is measured; only then does a run replace the page."""
    return set(options.only) == set(ALL) and set(options.parts) == set(PARTS)


def main() -> int:
    """Measure, or render again, as the command line says."""
    options = read_options()
    # Leaving by an exception, not at once, lets every block end the process that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        results = json.loads(RESULTS.read_text()) if options.render else measure(options)
    except BenchmarkError as error:
        print("\n".join(["", f"benchmark: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    if options.render or complete(options):
        keep(results)
    print(report.render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
