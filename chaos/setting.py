"""The machine and the versions behind the results, for readers to judge them by."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import machine
from chaos.results import ROOT
from testbed.servers.opensearch_install import VERSION

PACKAGES = ("uvicorn", "uvloop", "aiohttp", "msgspec")


def describe(work: Path) -> dict[str, Any]:
    """Return them by name; `work` is the directory of the spools."""
    return {
        "forebay": f"{metadata.version('forebay')}, {_revision()}",
        "opensearch": f"{VERSION}, one node, 512 MiB of heap",
        "python": f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        + ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        "machine": f"{machine.cpu_model()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{machine.memory_gib():.0f} GiB, {platform.system()} {platform.release()}",
        "disk": f"{machine.file_system(work)}; 4 KiB and `fdatasync`: {machine.sync_ms(work):.2f} ms (median)",
    }


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return f"revision {shown.stdout.strip()}" if shown.returncode == 0 else "revision unknown"
