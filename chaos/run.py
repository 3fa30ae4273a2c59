"""Runs every fault against real processes, keeps the results and writes docs/reliability.md from them.

Run it as `make chaos`, or with `--help` for its options.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script finds only its own directory

from chaos import document, setting  # noqa: E402 - behind the path
from chaos.matrix import BY_NAME, ROWS  # noqa: E402
from chaos.results import Result, keep_fault  # noqa: E402
from chaos.rows import Row  # noqa: E402
from chaos.scale import FULL, SHORT, Scale  # noqa: E402
from chaos.trial import Backends, try_row  # noqa: E402
from testbed.servers.opensearch import OpenSearchServer  # noqa: E402


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), metavar="ROW", help=f"rows: {' '.join(BY_NAME)}")
    parser.add_argument("--short", action="store_true", help="the short form of the tests; the document stays as it is")
    parser.add_argument("--render", action="store_true", help="only write the document again from the kept numbers")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "chaos", help="directory of the spools")
    return parser.parse_args()


def main() -> int:
    """Run the rows that the command line names; return 1 if one of them failed."""
    options = read_options()
    # Leaving by an exception, not at once, lets every block end the process that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.render:
        document.write()
        return 0
    rows = [BY_NAME[name] for name in options.only] if options.only else list(ROWS)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.short:
        results = run(rows, SHORT, options.work, lambda _: None)
    else:
        header = setting.describe(options.work)
        # After each row, so that a run which is broken off is not wasted.
        results = run(rows, FULL, options.work, lambda result: keep_fault(result, header))
        document.write()
    failed = [f"{result.row} {result.ack}" for result in results if result.problem]
    print(f"{len(failed)} of {len(results)} failed{': ' if failed else ''}{', '.join(failed)}")
    return 1 if failed else 0


def run(rows: list[Row], scale: Scale, work: Path, keep: Callable[[Result], None]) -> list[Result]:
    """Try every row with every acknowledgement."""
    results: list[Result] = []
    home = OpenSearchServer.install()
    with contextlib.ExitStack() as stack:
        backends = _find_backends(stack, home)
        for row in rows:
            for ack in row.acks:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work, ignore_cleanup_errors=True)))
                began_at = time.monotonic()
                result = asyncio.run(try_row(row, ack, scale, backends, folder))
                results.append(result)
                keep(result)
                _show(result, time.monotonic() - began_at)
    return results


def _find_backends(stack: contextlib.ExitStack, home: Path) -> Backends:
    """Return an OpenSearch that serves for both: no two rows run at a time."""
    server = stack.enter_context(OpenSearchServer(home))

    def own() -> OpenSearchServer:
        # A row that failed may have left it frozen or stopped.
        if not server.is_running:
            server.start()
        server.resume()
        server.wait_ready()
        return server

    return Backends(lambda: own().url, own)


def _show(result: Result, took_s: float) -> None:
    recovery = "-" if result.recovery_s is None else f"{result.recovery_s:.1f} s"
    print(
        f"{result.row:24} {result.ack:7} {result.events:7,} events  lost {result.lost}  duplicated {result.duplicated}"
        f"  recovered after {recovery}  took {took_s:.0f} s  answers {result.answers}"
        f" errors {result.connection_errors} resent {result.resent}",
        *(f"    {note}" for note in result.notes),
        *([f"    FAILED: {result.problem}"] if result.problem else []),
        sep="\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
