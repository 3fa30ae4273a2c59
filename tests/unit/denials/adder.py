"""Adds entries to a list, each printed once it is in, as a process that a test can kill.

    python tests/unit/denials/adder.py DATABASE PREFIX COUNT [EVENTS]

With EVENTS, it kills itself before so many-th call to the system that Python's audit hooks see while it adds the first.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from forebay.denials import changing
from forebay.denials.entries import Denial, Kind


def main(database: Path, prefix: str, count: int, kill_at: int | None = None) -> None:
    calls = itertools.count(1)

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        del arguments
        if event.startswith(("os.", "open", "fcntl.")) and next(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if kill_at is not None:
        sys.addaudithook(on_event)
    path = database.with_name(f"{database.name}.denials")
    for number in range(count):
        changing.add(database, path, [Denial(Kind.DEVICE, f"{prefix}{number}", "", datetime.now(UTC))])
        sys.stdout.write(f"{prefix}{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if sys.argv[4:] else None)
