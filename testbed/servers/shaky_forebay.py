"""The real Forebay on a disk that fails as a test tells it to: `python -m testbed.servers.shaky_forebay serve`.

`FOREBAY_TEST_FAULTS` names a text file. While it is there, each of its lines is a step that fails: `write`, `truncate`,
`sync` or `delete`, of the `log` or the `database` of the spool (`sync log`), for ever or `once`. Everything else works.
The workers of a supervisor are processes of their own, to which this does not reach.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path

from forebay.cli import main
from testbed.servers.faulty_vfs import Fault, Operation, Policy, faulty_files
from testbed.servers.forebay import ForebayServer

VARIABLE = "FOREBAY_TEST_FAULTS"

CODES = {
    Operation.WRITE: sqlite3.SQLITE_IOERR_WRITE,
    Operation.TRUNCATE: sqlite3.SQLITE_IOERR_TRUNCATE,
    Operation.SYNC: sqlite3.SQLITE_IOERR_FSYNC,
    Operation.DELETE: sqlite3.SQLITE_IOERR_DELETE,
}

LOCAL_STORE_END = "-events.db"
LOG_END = "-wal"


class ShakyForebay(ForebayServer):
    """A server whose disk fails when it is told to."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._faults = folder / "faults"
        environment = {VARIABLE: str(self._faults), "PYTHONPATH": str(Path(__file__).parents[2])}
        super().__init__(
            folder,
            {**environment, **(settings or {})},
            (sys.executable, "-m", "testbed.servers.shaky_forebay", "serve"),
        )

    def fail(self, *steps: str) -> None:
        """Let steps fail from now on, like `sync log` or `sync log once`, and no others."""
        partial = self._faults.with_suffix(".new")
        partial.write_text("".join(f"{step}\n" for step in steps))
        partial.rename(self._faults)

    def heal(self) -> None:
        """Let everything work again."""
        self._faults.unlink(missing_ok=True)


class FaultsOfFile(Policy):
    """Steps fail that a file names, as long as it is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: tuple[int, int] | None = None
        self._faults: set[str] = set()

    def decide(self, operation: Operation, path: str, offset: int, length: int) -> Fault | None:
        del offset, length
        name = path.removesuffix(LOG_END)
        if name.endswith(LOCAL_STORE_END) or Path(path).is_dir():
            return None
        side = "log" if path.endswith(LOG_END) else "database"
        step, faults = f"{operation} {side}", self._read()
        if not faults & {step, f"{step} once"}:
            return None
        faults.discard(f"{step} once")
        return Fault(CODES[operation])

    def _read(self) -> set[str]:
        """Read the file if it has changed."""
        try:
            state = self._path.stat()
            if self._read_at != (state.st_ino, state.st_mtime_ns):
                self._faults = set(self._path.read_text().splitlines())
                self._read_at = (state.st_ino, state.st_mtime_ns)
        except FileNotFoundError:
            self._read_at, self._faults = None, set()
        return self._faults


if __name__ == "__main__":
    with faulty_files(FaultsOfFile(Path(os.environ[VARIABLE]))):
        sys.exit(main())
