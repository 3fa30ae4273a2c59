"""Memory, descriptors and connections of a process, as Linux tells them in /proc."""

import contextlib
import resource
from pathlib import Path

DESCRIPTORS_OF_A_TEST = 200

LISTENING = "0A"
"""The state of a socket as /proc/net/tcp writes it."""


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process now (`OSError` if it has ended)."""
    return _memory_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """Return the most resident memory that a process has had (`OSError` if it has ended)."""
    return _memory_bytes(pid, "VmHWM")


def private_bytes(pid: int) -> int:
    """Return the resident memory that a process shares with no other (`OSError` if it has ended)."""
    rows = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(row[1]) * 1024 for row in rows if row[0].startswith("Private_"))


def open_descriptors(pid: int) -> int:
    """Return the number of file descriptors that a process has now (`OSError` if it has ended)."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def open_connections(pid: int, port: int) -> int:
    """Return the number of connections that a process has taken on a port and still has.

    Its other sockets, say towards OpenSearch, come and go by themselves and are not counted.
    """
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        # Some are closed between the listing and the look.
        with contextlib.suppress(FileNotFoundError):
            sockets.add(str(link.readlink()))
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(
        row[1].endswith(f":{port:04X}") and row[3] != LISTENING and f"socket:[{row[9]}]" in sockets for row in rows
    )


def thread_states(pid: int) -> set[str]:
    """Return the states that the threads of a process are in, each as its letter: R runs, S sleeps, T is stopped."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    # The name before the state may hold anything.
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


def limit_descriptors(pid: int, most: int) -> None:
    """Give a running process a limit; the hard one stays."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))


def reach_for_connections(wanted: int) -> int:
    """Raise this process's limit for many connections; return the number that it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (
        wanted + DESCRIPTORS_OF_A_TEST if hard == resource.RLIM_INFINITY else min(wanted + DESCRIPTORS_OF_A_TEST, hard)
    )
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - DESCRIPTORS_OF_A_TEST


def _memory_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")
