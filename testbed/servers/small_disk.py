"""A real file system that is small enough to be filled: a tmpfs, which only root can mount."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.servers.fixtures import report_missing


class SmallDisk:
    """A file system of so many bytes; `path` is its top folder."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        path.mkdir()
        self.path = path
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
        result = subprocess.run(mount, capture_output=True, text=True, check=False)
        if result.returncode:
            report_missing(f"no small file system can be mounted: {result.stderr.strip()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Lazily, so that a process that still has a file open there keeps it from nobody.
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self) -> None:
        """Take all the room that is left."""
        with (self.path / "ballast").open("ab", buffering=0) as file:
            block = bytes(1024 * 1024)
            while block:
                try:
                    file.write(block)
                except OSError:
                    block = block[: len(block) // 2]

    def empty(self) -> None:
        """Give back the room that `fill` took."""
        (self.path / "ballast").unlink(missing_ok=True)
