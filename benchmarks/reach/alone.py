"""Runs one part of the benchmark alone and prints its table."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.candidates import ROOT
from benchmarks.processes import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable


def run(
    measure: Callable[[Path, int, int], dict[str, Any]], render: Callable[[dict[str, Any]], str], about: str
) -> int:
    """Read the command line, measure, print the numbers and the table; return the exit code."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement (5)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench", help="directory of the databases")
    options = parser.parse_args()
    # Leaving by an exception, not at once, lets every block end the process that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work_directory = options.work.resolve()
    work_directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work_directory) as work:
        try:
            result = measure(Path(work), options.rounds, options.seconds)
        except BenchmarkError as error:
            print("\n".join([f"benchmark: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
            return 1
    print(json.dumps(result, indent=1), render(result), sep="\n\n")
    return 0
