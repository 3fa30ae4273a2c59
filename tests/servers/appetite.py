"""What a process takes of the machine, read from /proc (Linux)."""

import resource
from pathlib import Path

DESCRIPTORS_OF_A_TEST = 200


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has ended")


def open_descriptors(pid: int) -> int:
    """Return how many file descriptors a process has now."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def open_sockets(pid: int) -> int:
    """Return how many of them are sockets."""
    return sum(
        link.is_symlink() and str(link.readlink()).startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir()
    )


def limit_descriptors(pid: int, most: int) -> None:
    """Give a running process a limit; the hard one stays."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))


def reach_for_connections(wanted: int) -> int:
    """Let this test hold many connections; return how many it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (
        wanted + DESCRIPTORS_OF_A_TEST if hard == resource.RLIM_INFINITY else min(wanted + DESCRIPTORS_OF_A_TEST, hard)
    )
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - DESCRIPTORS_OF_A_TEST
