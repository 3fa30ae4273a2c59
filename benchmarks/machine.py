"""Describes the machine, without anything that names its owner or its directories."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.candidates import PEERS, PLAIN_PYTHON
from benchmarks.processes import BenchmarkError

IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
SYNCS = 300
FOREBAY_PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "pyjwt", "aiohttp", "backports.zstd", "brotli")
PLAIN_PACKAGES = ("fastapi", "opensearch-py", "uvicorn", "pydantic", "pyjwt")
RUST_PACKAGES = ("axum", "tokio", "serde_json", "jsonwebtoken")
GO_MODULES = {"benthos": "github.com/redpanda-data/benthos/v4", "otel": "go.opentelemetry.io/collector/otelcol"}
READ_VERSIONS = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"


def file_system(directory: Path) -> str:
    """Name the type of the file system that holds `directory`; one in memory would flatter the database."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point, mounted = line.split()[1:3]
        if len(point) >= len(best) and (directory == Path(point) or Path(point) in directory.parents):
            best, kind = point, mounted
    if kind in IN_MEMORY:
        raise BenchmarkError(f"the database would be on {kind}; choose a directory on a disk with --work")
    return kind


def sync_ms(directory: Path) -> float:
    """Measure the median time of a sync."""
    return statistics.median(sync_times_ms(directory))


def sync_times_ms(directory: Path) -> list[float]:
    """Measure how long the disk takes to make 4 KiB at the end of a file safe, the floor under `ack=disk`; in order."""
    probe = directory / "sync-probe"
    descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    took = []
    try:
        for _ in range(SYNCS):
            os.write(descriptor, bytes(4096))
            start = time.perf_counter()
            os.fdatasync(descriptor)
            took.append((time.perf_counter() - start) * 1000)
    finally:
        os.close(descriptor)
        probe.unlink()
    return sorted(took)


def cpu_model() -> str:
    """Read the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_gib() -> float:
    """Read the size of the main memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def wrk_version() -> str:
    """Ask wrk for its version, and make sure that it is there."""
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk is not installed (Debian and Ubuntu: apt install wrk)")
    # wrk ends with 1 after showing its version.
    shown = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)
    return (shown.stdout + shown.stderr).split()[1]


def versions() -> dict[str, dict[str, str]]:
    """Read the versions of what is compared, and of what it is made with."""
    python = {"CPython": platform.python_version()}
    return {
        "Forebay": python | {name: metadata.version(name) for name in ("forebay", *FOREBAY_PACKAGES)},
        "FastAPI + opensearch-py": python | plain_versions(),
        "Rust": {"rustc": tool_version("rustc", "--version"), **rust_versions()},
        "Go": {"go": tool_version("go", "env", "GOVERSION"), **{name: go_version(name) for name in GO_MODULES}},
        "load generator": {"wrk": wrk_version()},
    }


def plain_versions() -> dict[str, str]:
    """Ask the environment of the plain collector."""
    if not PLAIN_PYTHON.exists():
        return {}
    command = [str(PLAIN_PYTHON), "-c", READ_VERSIONS, *PLAIN_PACKAGES]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(PLAIN_PACKAGES, shown.stdout.split(), strict=True))


def rust_versions() -> dict[str, str]:
    """Read the locked versions of the Rust collector."""
    packages = tomllib.loads((PEERS / "rust" / "versions.lock").read_text())["package"]
    return {each["name"]: each["version"] for each in packages if each["name"] in RUST_PACKAGES}


def go_version(name: str) -> str:
    """Read the version of the module that a program of Go is about."""
    for line in (PEERS / name / "go.mod").read_text().splitlines():
        if GO_MODULES[name] in line.split():
            return line.split()[-1].removeprefix("v")
    raise BenchmarkError(f"{name}/go.mod does not name {GO_MODULES[name]}")


def tool_version(*command: str) -> str:
    """Ask a compiler for its version."""
    if shutil.which(command[0]) is None:
        return "not installed"
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return shown.stdout.removeprefix(command[0]).split()[0].removeprefix("go")


def describe(directory: Path) -> dict[str, Any]:
    """Describe the machine, for readers to judge the numbers by."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "virtual": " hypervisor" in Path("/proc/cpuinfo").read_text(),
        "memory_gib": round(memory_gib(), 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system(directory),
        "sync_ms": round(sync_ms(directory), 3),
        "load_average": round(os.getloadavg()[0], 2),
    }
