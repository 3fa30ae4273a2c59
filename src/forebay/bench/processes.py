"""The processes of a measurement: forked, ended, and their use of the machine as Linux tells it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from forebay.errors import ForebayError

END_S = 10.0
POLL_S = 0.05
PR_SET_PDEATHSIG = 1
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class BenchFailed(ForebayError):
    """Nothing could be measured."""


class Usage(NamedTuple):
    """The use of the machine by a process and its children, since their start."""

    processor_s: float
    written_bytes: int
    peak_bytes: int


@contextlib.contextmanager
def forked(work: Callable[[], int], log_path: Path) -> Iterator[int]:
    """Run `work` in a process of its own, whose output goes to a file; give its number, and end it at the end."""
    pid = os.fork()
    if pid == 0:
        _work(work, log_path)
    try:
        yield pid
    finally:
        _end(pid)


def _work(work: Callable[[], int], log_path: Path) -> None:
    code = 1
    try:
        # Ctrl-C is the parent's, which ends this process; so does its death.
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = work()
    except ForebayError as error:
        os.write(2, f"{error}\n".encode())
    except BaseException:  # noqa: BLE001 - nothing may get into the parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while not has_ended(pid):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def has_ended(pid: int) -> bool:
    """Return whether a child has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def measure_usage(pid: int) -> Usage:
    """Return the use of the machine by a process and its children.

    Raises:
        BenchFailed: it has ended.
    """
    try:
        usages = [_measure(pid), *map(_measure, _children(pid))]
    except OSError as error:
        raise BenchFailed("the server of the measurement has ended early") from error
    return Usage(*(sum(figures) for figures in zip(*usages, strict=True)))


class Processors(NamedTuple):
    """The time of all processors since the machine started, in ticks."""

    busy: int
    idle: int


def measure_processors() -> Processors:
    """Return the time of all processors of the machine."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return Processors(sum(ticks) - idle, idle)


def share_busy(before: Processors, after: Processors) -> float:
    """Return the share of all processors that was busy meanwhile."""
    busy, idle = after.busy - before.busy, after.idle - before.idle
    return busy / max(1, busy + idle)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _measure(pid: int) -> Usage:
    # The name before these fields may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    written = _read(pid, "io", "write_bytes:")
    return Usage(ticks / TICKS_A_SECOND, written, _read(pid, "status", "VmHWM:") * 1024)


def _read(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ProcessLookupError(pid)
