"""The measurements beside speed, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.processes import BenchmarkError
from benchmarks.reach import backlog, latency, memory, real_sink, workers, written
from testbed.servers.distribution import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.reach.goals import Finding


class Part(Protocol):
    """A module that measures one thing."""

    def measure(self, work: Path, rounds: int, seconds: int) -> dict[str, Any]:
        """Measure, for so many rounds."""

    def findings(self, result: dict[str, Any]) -> list[Finding]:
        """Return the values of a measurement, each with its goal."""


PARTS: Mapping[str, Part] = {
    "latency": latency,
    "written": written,
    "memory": memory,
    "opensearch": real_sink,
    "backlog": backlog,
    "workers": workers,
}


def measure(names: list[str], work: Path, rounds: int, seconds: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Take the measurements; return their results, and the reasons why some could not be taken."""
    results, reasons = {}, {}
    for name in names:
        print(f"measuring {name}", flush=True)
        try:
            results[name] = PARTS[name].measure(work, rounds, seconds)
        except (BenchmarkError, ServerUnavailableError) as error:
            reasons[name] = str(error)
            print("\n".join([f"{name}: {error}", *getattr(error, "__notes__", [])]), flush=True)
    return results, reasons


def findings(results: dict[str, Any]) -> list[Finding]:
    """Return all values, in the order of the parts."""
    return [finding for name, part in PARTS.items() if name in results for finding in part.findings(results[name])]
