"""The servers under test: how each is started, how it is asked, and its promise."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
PEERS = HERE / "peers"
BUILT = ROOT / ".cache" / "peers"
PLAIN_PYTHON = BUILT / "plain" / "bin" / "python"

SECRET = "a-secret-of-the-benchmark-that-guards-nothing"  # noqa: S105
INTERVAL_S = "1"
ENVIRONMENT = "bench"
PROTOTYPE = "prototype"


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


class Form(Enum):
    """A form of requests: the addresses of one event and of many, and the scripts of wrk that send them."""

    NATIVE = ("/events", "/events/batch", "single_events.lua", "batch_events.lua")
    OTLP = ("/v1/logs", "/v1/logs", "otlp.lua", "otlp.lua")

    def path(self, events: int) -> str:
        """Return the address for so many events a request."""
        return self.value[events > 1]

    def script(self, events: int) -> str:
        """Return the script for so many events a request."""
        return self.value[2 + (events > 1)]


@dataclass(frozen=True)
class Candidate:
    """A server that can be measured.

    Attributes:
        means: what is true of an event that got a 200.
        checks_fields: if not, anything that can be decoded is taken.
        delivers: if not, nothing reaches the sink, so nothing can be counted there.
    """

    name: str
    title: str
    command: Callable[[Launch], list[str]]
    environment: Callable[[Launch], dict[str, str]]
    means: str = "in memory"
    form: Form = Form.NATIVE
    checks_token: bool = True
    checks_fields: bool = True
    takes_batches: bool = True
    delivers: bool = True


def _shared(launch: Launch) -> dict[str, str]:
    return {
        "OPEN_SEARCH_DNS": launch.sink,
        "SERVER_PORT": str(launch.port),
        "SERVER_ENVIRONMENT": ENVIRONMENT,
        "JWT_SECRET": SECRET,
        "BULK_INTERVAL_S": INTERVAL_S,
        "FOREBAY_BULK_INTERVAL_S": INTERVAL_S,
    }


def _forebay(executable: Path) -> Callable[[Launch], list[str]]:
    return lambda _: [str(executable), "serve"]


def _forebay_environment(ack: str) -> Callable[[Launch], dict[str, str]]:
    """Give Forebay its settings: its defaults, but for addresses, the interval and metrics without a token."""

    def environment(launch: Launch) -> dict[str, str]:
        return {
            **_shared(launch),
            "DATABASE_URL": f"sqlite:///{launch.directory / 'spool.db'}",
            "FOREBAY_HOST": "127.0.0.1",
            "FOREBAY_ACK": ack,
            "FOREBAY_METRICS_OPEN": "true",
        }

    return environment


def _bare(launch: Launch) -> list[str]:
    return [sys.executable, str(PEERS / "bare.py"), "--port", str(launch.port)]


def _plain(launch: Launch) -> list[str]:
    """Start uvicorn with its fastest parts and without its access log."""
    serve = [str(PLAIN_PYTHON), "-m", "uvicorn", "plain_collector:app", "--app-dir", str(PEERS)]
    fast = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [*serve, *fast, "--host", "127.0.0.1", "--port", str(launch.port)]


def _rust(_: Launch) -> list[str]:
    return [str(BUILT / "rust" / "release" / "collector")]


def _benthos(_: Launch) -> list[str]:
    return [str(BUILT / "benthos"), "run", str(PEERS / "benthos" / "config.yaml")]


def _otel(*configurations: str) -> Callable[[Launch], list[str]]:
    options = [f"--config={PEERS / 'otel' / name}" for name in configurations]
    return lambda _: [str(BUILT / "otel"), *options]


def _otel_environment(launch: Launch) -> dict[str, str]:
    return {**_shared(launch), "QUEUE_DIRECTORY": str(launch.directory)}


DISK = Candidate(
    "disk",
    "Forebay, `ack=disk`",
    _forebay(Path(sys.executable).parent / "forebay"),
    _forebay_environment("disk"),
    means="synced to disk",
)
MEMORY = replace(DISK, name="memory", title="Forebay, `ack=memory`", environment=_forebay_environment("memory"))
MEMORY = replace(MEMORY, means="in memory")
BARE = Candidate(
    "bare",
    "bare httptools",
    _bare,
    lambda _: {},
    means="nothing",
    checks_token=False,
    checks_fields=False,
    takes_batches=False,
    delivers=False,
)
PLAIN = Candidate("plain", "FastAPI + opensearch-py", _plain, _shared, takes_batches=False)
RUST = Candidate("rust", "Rust: axum + tokio", _rust, _shared)
BENTHOS = Candidate("benthos", "Benthos", _benthos, _shared, takes_batches=False)
OTEL = Candidate(
    "otel",
    "OpenTelemetry Collector, queue in memory",
    _otel("memory.yaml"),
    _otel_environment,
    form=Form.OTLP,
    checks_token=False,
    checks_fields=False,
)
OTEL_DISK = replace(
    OTEL,
    name="otel-disk",
    title="OpenTelemetry Collector, queue on disk",
    command=_otel("memory.yaml", "disk.yaml"),
    means="synced to disk",
)
ALL = {one.name: one for one in (DISK, MEMORY, BARE, PLAIN, RUST, BENTHOS, OTEL, OTEL_DISK)}
FOREBAY = (DISK, MEMORY)


def before(label: str, executable: Path) -> Candidate:
    """Make a candidate of another version of Forebay, to tell what a change has brought."""
    return replace(DISK, name="before", title=f"Forebay at {label}, `ack=disk`", command=_forebay(executable))


def prototype(script: Path) -> Candidate:
    """Make a candidate of a script that takes Forebay's settings, and runs in Forebay's environment."""
    return replace(
        DISK, name=PROTOTYPE, title=PROTOTYPE, command=lambda _: [sys.executable, str(script)], means="synced to disk"
    )
