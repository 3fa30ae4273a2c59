"""Counts the processor instructions of an event's way in: a measure that does not depend on how busy a machine is.

valgrind's callgrind counts those of `benchmarks/drive.py`. Interpreters differ, so the measure is a ratio: the
instructions of an event over those of a fixed piece of plain Python that runs beside it.

python benchmarks/instructions.py [--record]
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DRIVE = ROOT / "benchmarks" / "drive.py"
SECRET = "the key of a measurement, which guards nothing"  # noqa: S105 - it guards nothing
PLAIN_STEPS = 20 * 1_000
EVENTS = {"singles": 20 * 50, "batches": 10 * 10 * 100}
TIMEOUT_S = 300


class Ratios(NamedTuple):
    """Instructions of an event, over those of a step of plain Python."""

    single: float
    batch_event: float


def count_instructions() -> dict[str, int]:
    """Return the instructions of each piece of the drive."""
    with tempfile.TemporaryDirectory() as folder:
        output = f"--callgrind-out-file={folder}/%p"
        finished = subprocess.run(
            ["valgrind", "--quiet", "--tool=callgrind", output, sys.executable, str(DRIVE)],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONHASHSEED": "0",
                "JWT_SECRET": SECRET,
                "SERVER_ENVIRONMENT": "bench",
                "DATABASE_URL": f"sqlite://{folder}/spool.db",
            },
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=True,
        )
        pieces: dict[str, list[int]] = json.loads(finished.stdout)
        return {
            name: _read_count(Path(folder, str(whole))) - _read_count(Path(folder, str(first)))
            for name, (first, whole) in pieces.items()
        }


def _read_count(profile: Path) -> int:
    match = re.search(r"^totals: (\d+)$", profile.read_text(), flags=re.MULTILINE)
    assert match, f"callgrind wrote no total into {profile}"
    return int(match[1])


def main() -> None:
    """Print the instructions of an event, alone and as a multiple of a step of plain Python."""
    counted = count_instructions()
    print(counted)
    step = counted["plain"] / PLAIN_STEPS
    for name, events in EVENTS.items():
        each = counted[name] / events
        print(name, round(each), round(each / step, 3))


if __name__ == "__main__":
    main()
