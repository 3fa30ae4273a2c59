"""Folders in memory, in which hundreds of databases can be written without waiting for a disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


def make_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that goes with its context; it is on a disk if the system has no file system in memory."""
    return tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
