"""Starts pinned processes, ends them by pid in any case, and reads their times and memory from the kernel."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from testbed.servers.process_usage import peak_bytes, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVER_CORE = 0
LOAD_CORE = 1
STOP_WITHIN_S = 30.0
START_WITHIN_S = 30.0
MIB = 1024 * 1024
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """The measurement cannot be taken or cannot be trusted."""


class Memory(NamedTuple):
    """Resident memory of a process in MiB."""

    now: float
    peak: float


def pinned(core: int, command: list[str]) -> list[str]:
    """Return a command that stays, with its children, on one core."""
    return ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def running(
    command: list[str], *, core: int, directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for as long as the block lasts; its output goes to a file in `directory`.

    The environment is made anew, so that a variable of the caller cannot change the measurement.
    """
    log = directory / f"{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(core, command),
            cwd=directory,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    except BenchmarkError as error:
        error.add_note(f"the end of the log of {Path(command[0]).name}:\n{log.read_text(errors='replace')[-2000:]}")
        raise
    finally:
        stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process, by force if it does not end when asked."""
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def get(port: int, path: str, timeout: float = 5.0) -> tuple[int, bytes]:
    """GET a path of a server on the loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a server answers an HTTP request, with whatever it has at that address."""
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchmarkError(f"a server ended with {process.returncode} before it was up")
        with contextlib.suppress(OSError, http.client.HTTPException):
            get(port, "/ping")
            return
        time.sleep(0.05)
    raise BenchmarkError(f"a server did not answer within {START_WITHIN_S:.0f} s")


def tree(pid: int) -> list[int]:
    """List a process and its descendants, so that work in a child is not overlooked."""
    pids = [pid]
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                pids += tree(int(child))
    return pids


def cpu_seconds(pid: int) -> float:
    """Add up the processor time that a process and its descendants have used."""
    ticks = 0
    for each in tree(pid):
        # The name in parentheses may hold spaces, so the fields are counted from behind it: utime and stime.
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def memory(pid: int) -> Memory:
    """Read the resident memory of a process and its descendants, now and at its peak."""
    pids = tree(pid)
    return Memory(sum(map(resident_bytes, pids)) / MIB, sum(map(peak_bytes, pids)) / MIB)


class CoreTime(NamedTuple):
    """The times of one core since the machine started, in ticks."""

    busy: int
    stolen: int
    total: int


def core_time(core: int) -> CoreTime:
    """Read the time that a core has worked, and the time that the host took from it."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            # user nice system idle iowait irq softirq steal; guest time is in user already
            ticks = [int(field) for field in line.split()[1:9]]
            idle, stolen, total = ticks[3] + ticks[4], ticks[7], sum(ticks)
            return CoreTime(total - idle - stolen, stolen, total)
    raise BenchmarkError(f"this machine has no core {core}; the measurement needs two")
