"""A real file system that is small enough to be filled: a tmpfs, also for tests that do not run as root.

Root mounts it in place. Anybody else mounts it in a namespace of their own (user_namespaces(7)), where a process that
holds the mount stays; its files are reached through /proc/PID/root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

MOUNT_AND_WAIT = 'mount -t tmpfs -o "size=$2" tmpfs "$1" && echo mounted && exec sleep 600'


class SmallDisk:
    """A file system of so many bytes; `path` is its top folder."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._holder: subprocess.Popen[str] | None = None
        if os.geteuid() == 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], check=True)
            self.path = folder
            return
        self._holder = subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT_AND_WAIT, "sh", str(folder), str(size_bytes)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "mounted\n":
            self.close()
            raise RuntimeError("no small file system could be mounted")
        self.path = Path(f"/proc/{self._holder.pid}/root{folder.resolve()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the file system away, with everything in it."""
        if self._holder is None:
            # Lazily, so that a process that still has a file open there keeps it from nobody.
            subprocess.run(["umount", "--lazy", str(self._folder)], check=True)
            return
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()

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
        """Give back what was taken."""
        (self.path / "ballast").unlink(missing_ok=True)
