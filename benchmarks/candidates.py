"""The servers under test: their installation and their start."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
LOCK = ROOT / "requirements" / "bench.lock"
PLAIN_ENVIRONMENT = ROOT / ".cache" / "bench-venv"
PLAIN_PYTHON = PLAIN_ENVIRONMENT / "bin" / "python"

SECRET = "a-secret-of-the-benchmark-that-guards-nothing"  # noqa: S105
INTERVAL_S = "1"


@dataclass(frozen=True)
class Launch:
    """One start of a server: its directory and ports."""

    directory: Path
    port: int
    sink_port: int

    @property
    def sink(self) -> str:
        """The address that the server sends its bulks to."""
        return f"http://127.0.0.1:{self.sink_port}"


@dataclass(frozen=True)
class Candidate:
    """A server that can be measured."""

    name: str
    title: str
    command: Callable[[Launch], list[str]]
    environment: Callable[[Launch], dict[str, str]]


def install_plain() -> None:
    """Make the environment of the plain collector from its lock, unless this lock is installed already."""
    stamp = PLAIN_ENVIRONMENT / "installed-lock"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    print("installing the plain collector's packages", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", PLAIN_ENVIRONMENT], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(LOCK)]
    subprocess.run([PLAIN_PYTHON, *install], check=True)
    stamp.write_text(digest)


def plain_command(launch: Launch) -> list[str]:
    """Start uvicorn with its fastest parts and without its access log."""
    serve = [str(PLAIN_PYTHON), "-m", "uvicorn", "plain_collector:app", "--app-dir", str(HERE)]
    fast = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [*serve, *fast, "--host", "127.0.0.1", "--port", str(launch.port)]


def plain_environment(launch: Launch) -> dict[str, str]:
    """Give the plain collector its settings."""
    return {"OPEN_SEARCH_DNS": launch.sink, "JWT_SECRET": SECRET, "BULK_INTERVAL_S": INTERVAL_S}


def forebay_command(_: Launch) -> list[str]:
    """Start Forebay from the environment that runs this script."""
    return [str(Path(sys.executable).parent / "forebay"), "serve"]


def forebay_environment(ack: str) -> Callable[[Launch], dict[str, str]]:
    """Give Forebay its settings: its defaults, but for addresses, the interval and metrics without a token."""

    def environment(launch: Launch) -> dict[str, str]:
        return {
            "OPEN_SEARCH_DNS": launch.sink,
            "SERVER_PORT": str(launch.port),
            "JWT_SECRET": SECRET,
            "SERVER_ENVIRONMENT": "bench",
            "DATABASE_URL": f"sqlite:///{launch.directory / 'spool.db'}",
            "FOREBAY_HOST": "127.0.0.1",
            "FOREBAY_ACK": ack,
            "FOREBAY_BULK_INTERVAL_S": INTERVAL_S,
            "FOREBAY_METRICS_OPEN": "true",
        }

    return environment


PLAIN = Candidate("plain", "plain FastAPI + opensearch-py", plain_command, plain_environment)
DISK = Candidate("disk", "Forebay, `ack=disk`", forebay_command, forebay_environment("disk"))
MEMORY = Candidate("memory", "Forebay, `ack=memory`", forebay_command, forebay_environment("memory"))
ALL = {candidate.name: candidate for candidate in (PLAIN, DISK, MEMORY)}
FOREBAY = (DISK, MEMORY)
