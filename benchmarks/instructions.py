"""Counts the processor instructions of an event's way in: a measure that does not depend on how busy a machine is.

valgrind's callgrind counts them in `benchmarks/drive.py`. The measure is a ratio: those of the way in, over those of
the least that Python can do with the same requests. Builds of Python still differ by 5 % in it, so each has a record.

python benchmarks/instructions.py [--record]
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRIVE = ROOT / "benchmarks" / "drive.py"
RECORDS = ROOT / "benchmarks" / "results" / "instructions.json"
SECRET = "the key of a measurement, which guards nothing"  # noqa: S105 - it guards nothing
INTERPRETER = f"Python {platform.python_version()}, {platform.python_compiler()}, {platform.machine()}"

TOLERANCE = 0.03
"""Far above the differences between two runs (0.1 %) and between processors (0.5 %: the C library chooses its code)."""

TIMEOUT_S = 300

Ratios = Mapping[str, float]
"""The ratio of each drive, by its name."""


def measure() -> Ratios:
    """Return the ratios of this code, on this interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        output = f"--callgrind-out-file={folder}/%p"
        finished = subprocess.run(
            [shutil.which("valgrind") or "valgrind", "--quiet", "--tool=callgrind", output, sys.executable, str(DRIVE)],
            cwd=folder,
            env={
                # Nothing of the caller's: even the size of the environment moves the count by 0.3 %.
                "PYTHONHASHSEED": "0",
                "JWT_SECRET": SECRET,
                "SERVER_ENVIRONMENT": "bench",
                "DATABASE_URL": f"sqlite://{folder}/spool.db",
            },
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=True,
        )
        drives: Mapping[str, tuple[tuple[int, int], tuple[int, int]]] = json.loads(finished.stdout)
        return {
            name: round(_count(folder, *way_in) / _count(folder, *plain), 3) for name, (way_in, plain) in drives.items()
        }


def _count(folder: str, first_pid: int, all_pid: int) -> int:
    """Return the instructions of all rounds but the first, from the counts of two processes."""
    return _read(Path(folder, str(all_pid))) - _read(Path(folder, str(first_pid)))


def _read(profile: Path) -> int:
    match = re.search(r"^totals: (\d+)$", profile.read_text(), flags=re.MULTILINE)
    assert match, f"callgrind wrote no total into {profile}"
    return int(match[1])


def read_record() -> Ratios | None:
    """Return the ratios that are on record for this interpreter, or None."""
    records: dict[str, Ratios] = json.loads(RECORDS.read_text())
    return records.get(INTERPRETER)


def record(measured: Ratios) -> Ratios:
    """Lower the record of this interpreter, or begin it; return it."""
    records: dict[str, Ratios] = json.loads(RECORDS.read_text())
    before = records.get(INTERPRETER, measured)
    records[INTERPRETER] = {name: min(ratio, before.get(name, ratio)) for name, ratio in measured.items()}
    RECORDS.write_text(json.dumps(records, indent=2, sort_keys=True) + "\n")
    return records[INTERPRETER]


def judge(measured: Ratios, recorded: Ratios) -> list[str]:
    """Return a complaint for each ratio that is not the recorded one, within the tolerance."""
    complaints = []
    for name, ratio in measured.items():
        change = ratio / recorded[name] - 1
        ratios = f"{name}: {ratio:.3f} instead of {recorded[name]:.3f} ({change:+.1%})"
        if change > TOLERANCE:
            complaints.append(
                f"{ratios}: the way in takes more instructions. If it must, remove the record of this interpreter from "
                f"{RECORDS.relative_to(ROOT)} and run `make ratchet`"
            )
        elif change < -TOLERANCE:
            complaints.append(f"{ratios}: a gain that is not recorded can be lost again; record it with `make ratchet`")
    return complaints


def main() -> int:
    """Measure, compare with the record, and lower it if that is asked; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="lower the record to what is measured")
    options = parser.parse_args()
    measured = measure()
    recorded = record(measured) if options.record else read_record()
    print(INTERPRETER)
    for name, ratio in measured.items():
        print(f"{name:<7} {ratio:.3f}   record {recorded[name] if recorded else 'none'}")
    complaints = judge(measured, recorded) if recorded else []
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
