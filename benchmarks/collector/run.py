"""Puts Forebay and the OpenTelemetry Collector to the same trial, and writes docs/otlp-side-by-side.md."""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # a script finds only its own directory

from benchmarks import building  # noqa: E402 - behind the path
from benchmarks.candidates import BUILT  # noqa: E402
from benchmarks.collector import page, trial  # noqa: E402
from benchmarks.collector.relay import Relay  # noqa: E402
from benchmarks.collector.servers import Collector  # noqa: E402
from chaos import setting  # noqa: E402
from testbed.servers.forebay import ForebayServer  # noqa: E402
from testbed.servers.opensearch import OpenSearchServer  # noqa: E402

PROGRAMS = {page.CONTRIB: "contrib", page.QUEUED: "contrib", page.OWN: "otel"}
"""The program with the exporter of a collector, by the collector's name."""


class Candidate(NamedTuple):
    """A server that can be put to the trial: how it is made, and the version that it tells."""

    name: str
    prepare: Callable[[Path, str], ForebayServer | Collector]
    version: str


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=page.TITLES, metavar="NAME", help=" ".join(page.TITLES))
    parser.add_argument("--quick", action="store_true", help="20 seconds instead of 120; the page stays as it is")
    parser.add_argument("--render", action="store_true", help="only write the page again from the kept numbers")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "collector", help="directory of the queues")
    return parser.parse_args()


def choose(options: argparse.Namespace) -> list[Candidate]:
    """Return the servers that the command line asks for; build the collectors among them."""
    found = []
    for name in options.only or page.TITLES:
        if name == page.FOREBAY:
            found.append(Candidate(name, prepare_forebay, setting.describe(options.work)["forebay"]))
        else:
            executable = build(PROGRAMS[name])
            found.append(Candidate(name, prepare_collector(name, executable), read_version(executable)))
    return found


def prepare_forebay(folder: Path, opensearch_url: str) -> ForebayServer:
    """Make Forebay with its defaults."""
    return ForebayServer(folder, {"OPEN_SEARCH_DNS": opensearch_url})


def prepare_collector(exporter: str, executable: Path) -> Callable[[Path, str], Collector]:
    """Make a collector with the settings of one exporter."""
    return lambda folder, opensearch_url: Collector(executable, exporter, folder, opensearch_url)


def build(program: str) -> Path:
    """Build a collector from its folder in benchmarks/peers, and return its executable."""
    BUILT.mkdir(parents=True, exist_ok=True)
    try:
        building.build_go(program)
    except building.BuildError as error:
        raise SystemExit(f"the collector cannot be built: {error}") from error
    return BUILT / program


def read_version(executable: Path) -> str:
    """Ask a collector for its version."""
    shown = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.split()[-1]


def measure(candidate: Candidate, opensearch: OpenSearchServer, timing: trial.Timing, work: Path) -> trial.Result:
    """Put one server to the trial, on an empty disk and with an empty OpenSearch."""
    opensearch.reset()
    port = int(opensearch.url.rpartition(":")[2])
    with (
        tempfile.TemporaryDirectory(dir=work) as folder,
        Relay(port) as relay,
        candidate.prepare(Path(folder), relay.url) as server,
    ):
        return asyncio.run(trial.run(server, relay, opensearch.url, timing))


def main() -> int:
    """Measure, or only write the page, as the command line says."""
    options = read_options()
    # Leaving by an exception, not at once, lets every block end the process that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.render:
        page.write()
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    with OpenSearchServer(OpenSearchServer.install()) as opensearch:
        for candidate in choose(options):
            result = measure(candidate, opensearch, trial.QUICK if options.quick else trial.FULL, options.work)
            print(candidate.name, candidate.version, result, flush=True)
            if not options.quick:
                when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
                page.keep(candidate.name, result, {"when": when, "version": candidate.version})
    if not options.quick:
        page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
