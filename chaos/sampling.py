"""Resident memory and open files of a process over time, and whether they stay level."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from testbed.servers.process_usage import open_descriptors, resident_bytes

INTERVAL_S = 2.0
WARM_UP_S = 180.0
"""Samples of this first time say nothing about leaks: memory grows until a long outage has filled channel and pools."""

THIRDS_SAMPLES_MIN = 9
MEMORY_GROWTH_MAX = 0.15
FILES_GROWTH_MAX = 10
S_PER_HOUR = 3600


class Sample(NamedTuple):
    """A process at one moment.

    Attributes:
        at_s: since the beginning of the run.
        age_s: since the process was first seen.
        resident_mb: its resident memory, in MB.
        files: its open file descriptors.
    """

    at_s: float
    age_s: float
    resident_mb: float
    files: int


class ProcessRun(NamedTuple):
    """The samples of one process, and its end."""

    samples: list[Sample]
    ending: list[str]


class Trend(NamedTuple):
    """The trend of a series.

    Attributes:
        first: median of its first third.
        last: median of its last third.
        slope: its gain in an hour, by least squares.
        most: its largest value.
    """

    first: float
    last: float
    slope: float
    most: float


class Sampler:
    """Watches a server from start to start.

    Attributes:
        runs: one for each process, in their order.
    """

    def __init__(self, find_pid: Callable[[], int | None]) -> None:
        """Watch the process that `find_pid` names, or none if it returns None."""
        self._find_pid = find_pid
        self._began_at = time.monotonic()
        self.runs: list[ProcessRun] = []

    async def run(self) -> None:
        """Take samples for ever."""
        watched, first_at = None, 0.0
        while True:
            pid = self._find_pid()
            now = time.monotonic()
            if pid is not None and pid != watched:
                watched, first_at = pid, now
                self.runs.append(ProcessRun([], []))
            # It may end at any moment.
            with contextlib.suppress(OSError):
                if pid is not None:
                    usage = resident_bytes(pid) / 1e6, open_descriptors(pid)
                    self.runs[-1].samples.append(Sample(now - self._began_at, now - first_at, *usage))
            await asyncio.sleep(INTERVAL_S)

    def end_run(self, how: str) -> None:
        """Record the end of the process that is watched now."""
        if self.runs:
            self.runs[-1].ending.append(how)

    @property
    def warm(self) -> list[Sample]:
        """Samples of all processes that had run for a while."""
        return [sample for run in self.runs for sample in run.samples if sample.age_s >= WARM_UP_S]


def find_trend(points: Sequence[tuple[float, float]]) -> Trend | None:
    """Describe a series of (seconds, value); None if it is too short."""
    if len(points) < THIRDS_SAMPLES_MIN:
        return None
    third = len(points) // 3
    values = [value for _, value in points]
    slope = statistics.linear_regression([at for at, _ in points], values).slope
    return Trend(statistics.median(values[:third]), statistics.median(values[-third:]), slope * S_PER_HOUR, max(values))


def judge(memory: Trend | None, files: Trend | None) -> str:
    """Return a sentence on whether memory and files stay level."""
    if memory is None or files is None:
        return "The run was too short to say whether memory and open files stay level."
    is_level = memory.last <= memory.first * (1 + MEMORY_GROWTH_MAX) and files.last <= files.first + FILES_GROWTH_MAX
    return (
        f"Resident memory and open files {'are level' if is_level else '**grow**'}: the median of the run's first "
        f"third is {memory.first:.0f} MB and {files.first:.0f} files, of the last third {memory.last:.0f} MB and "
        f"{files.last:.0f} files; the slope over the run is {memory.slope:+.1f} MB and {files.slope:+.1f} files an "
        f"hour (level: at most {MEMORY_GROWTH_MAX:.0%} more memory and {FILES_GROWTH_MAX} more files; the first "
        f"{WARM_UP_S:.0f} s of each process are left out)."
    )
