"""Measures Forebay and other collectors in turn, keeps the raw numbers and writes docs/benchmarks.md from them.

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

from benchmarks import building, candidates, clients, formats, killing, machine, report, speed
from benchmarks.candidates import ALL, INTERVAL_S, PROTOTYPE, ROOT, Candidate
from benchmarks.processes import LOAD_CORE, SERVER_CORE, BenchmarkError
from benchmarks.reach import parts

RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PARTS = ("speed", "kills", "formats", *parts.PARTS)
QUICK = speed.Timing(rounds=1, seconds=1, warm_up=1)


def choice(allowed: tuple[str, ...]) -> Any:
    """Make a reader of comma-separated names."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(allowed)}")
        return names

    return read


def labelled(text: str) -> tuple[str, Path]:
    """Read LABEL=PATH."""
    label, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("write LABEL=PATH")
    return label, Path(path)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=choice(tuple(ALL)), default=list(ALL), help=f"candidates: {','.join(ALL)}")
    parser.add_argument("--parts", type=choice(PARTS), default=list(PARTS), help=f"parts: {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=int, default=3, help="length of each measurement (3)")
    parser.add_argument("--warm-up", type=int, default=2, help="seconds before each measurement (2)")
    parser.add_argument("--quick", action="store_true", help="one short round, to try a change of the benchmark itself")
    parser.add_argument("--before", type=labelled, metavar="LABEL=FOREBAY", help="the command of another version")
    parser.add_argument("--prototype", type=Path, help="a script with Forebay's settings; it is not on the page")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench", help="directory of the databases")
    parser.add_argument("--render", action="store_true", help="only write the page again from the kept numbers")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Candidate]:
    """Return the candidates that the command line names."""
    found = [ALL[name] for name in options.only]
    found += [candidates.before(*options.before)] if options.before else []
    return found + ([candidates.prototype(options.prototype)] if options.prototype else [])


def timing(options: argparse.Namespace) -> speed.Timing:
    """Return the length of the measurement."""
    return QUICK if options.quick else speed.Timing(options.rounds, options.seconds, options.warm_up)


def measure_parts(options: argparse.Namespace, able: list[Candidate], work: Path) -> dict[str, Any]:
    """Take the measurements that were asked for; those that were not are empty."""
    wanted, length = options.parts, timing(options)
    kills = killing.measure_all(able, work) if "kills" in wanted else []
    runs = speed.measure(able, length, work) if "speed" in wanted else []
    by_format = formats.measure(work, *length) if "formats" in wanted else None
    beside = [name for name in parts.PARTS if name in wanted]
    reach, unmeasured = parts.measure(beside, work, length.rounds, length.seconds)
    return {"speed": runs, "kills": kills, "formats": by_format, "reach": reach, "unmeasured": unmeasured}


def about(candidate: Candidate) -> dict[str, str]:
    """Describe a candidate for the page."""
    checks = [
        name for name, checked in (("token", candidate.checks_token), ("fields", candidate.checks_fields)) if checked
    ]
    return {"title": candidate.title, "means": candidate.means, "checks": ", ".join(checks) or "nothing"}


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the measurement."""
    connections = [f"{count} connections for {report.LOADS[events]}" for events, count in speed.CONNECTIONS.items()]
    return {
        **timing(options)._asdict(),
        "connections": ", ".join(connections),
        "users": speed.USERS,
        "interval": INTERVAL_S,
        "event_bytes": round(len(clients.body(0, 100, batch=True)) / 1000) * 10,
        "server_core": SERVER_CORE,
        "load_core": LOAD_CORE,
        "kill_connections": killing.CONNECTIONS,
        "kill_s": killing.KILLED_AFTER_S,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure and return everything that the page shows."""
    wanted = chosen(options)
    left_out = building.build([candidate.name for candidate in wanted])
    able = [candidate for candidate in wanted if candidate.name not in left_out]
    start = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as directory:
        work = Path(directory)
        described = {"machine": machine.describe(work), "versions": machine.versions()}
        measured = measure_parts(options, able, work)
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "minutes": round((time.monotonic() - start) / 60),
        **described,
        "settings": settings(options),
        "candidates": {candidate.name: about(candidate) for candidate in able},
        "left_out": {ALL[name].title: reason for name, reason in left_out.items()},
        **measured,
    }


def keep(results: dict[str, Any]) -> None:
    """Write the numbers and the page."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(report.render(results))


def without_prototype(results: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only the one who runs this can look at."""
    kept = {part: [run for run in results[part] if run["candidate"] != PROTOTYPE] for part in ("speed", "kills")}
    named = {name: about for name, about in results["candidates"].items() if name != PROTOTYPE}
    return {**results, "candidates": named, **kept}


def renewed(options: argparse.Namespace, results: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the page shows from now on; None if a run measured too little to change it.

    The formats can be measured alone: they say themselves when.
    """
    if complete(options):
        return without_prototype(results)
    if options.parts == ["formats"] and not options.quick:
        kept: dict[str, Any] = json.loads(RESULTS.read_text())
        return {**kept, "formats": results["formats"]}
    return None


def complete(options: argparse.Namespace) -> bool:
    """Return whether everything is measured; only then does a run replace the page."""
    return set(options.only) == set(ALL) and set(options.parts) == set(PARTS) and not options.quick


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
    shown = results if options.render else renewed(options, results)
    if shown is not None:
        keep(shown)
    print(report.render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
