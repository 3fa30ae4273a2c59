"""This process and the operating system: its file descriptors, its free memory, and a time limit for its end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger("forebay.process")

DESCRIPTORS_RESERVED = 128
"""For the database and its log, connections to the sink, and libraries; about 50 are in use."""

TRIM_INTERVAL_S = 60.0
"""How often free memory goes back. It takes 3 to 6 ms after 100,000 events filled the heap, and all else waits."""

KEPT_BYTES_MAX = 16 * 1024 * 1024
"""Free memory at the end of the heap that malloc keeps between two trims, instead of asking for it again."""

MAPPED_BYTES_MIN = 4 * 1024 * 1024
"""Larger pieces are mapped one by one. Bulks and groups are smaller."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""malloc.h of glibc; mallopt(3)."""

LATE_EXIT_CODE = 1


def fit_connections(connections_max: int) -> int:
    """Raise the process's own limit of file descriptors as far as needed; return the connections that it allows.

    Containers often start with a soft limit of 1,024. Beyond it a connection is accepted and closed without a word, and
    the spool and the sink could open nothing either.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + DESCRIPTORS_RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections_max
    # A process with next to no descriptors still takes a few connections.
    fitting = max(soft - DESCRIPTORS_RESERVED, soft // 4)
    log.warning("fewer_connections", connections_max=connections_max, possible=fitting, descriptors=soft)
    return fitting


def keep_freed_memory() -> None:
    """Let malloc keep some memory that is freed; with another allocator than glibc's, do nothing.

    The bodies of bulks and groups come and go all the time. malloc would give the memory of most of them back at once,
    and the kernel clear each page anew for the next one: a sixth of the processor time of an event in a batch.
    """
    set_option = find_in_allocator("mallopt")
    if set_option is not None:
        set_option(M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
        set_option(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)


async def give_back_memory(interval_s: float = TRIM_INTERVAL_S) -> None:
    """Give free memory back to the system now and then, for ever; with another allocator than glibc's, do nothing.

    Events are too large for Python's own allocator, so they lie in malloc's heap. An outage fills it, and delivery then
    leaves holes. malloc keeps them, so each longer outage would leave the process larger for good.
    """
    trim = find_in_allocator("malloc_trim")
    while trim is not None:
        await asyncio.sleep(interval_s)
        # Whole pages go from anywhere in the heap, not only from its end (malloc_trim(3), glibc 2.8 and later).
        trim(0)


def find_in_allocator(name: str) -> Callable[..., int] | None:
    """Return a function of the allocator, if it has one of that name."""
    return getattr(ctypes.CDLL(None), name, None)


def end_within(limit_s: float) -> None:
    """End the process after `limit_s` if it has not ended by itself until then.

    A disk or a network file system that hangs holds the thread that waits for it, and everyone who waits for that
    thread. No event is lost that was answered after its commit: a power cut does the same, and the next start reads
    the spool.
    """
    timer = threading.Timer(limit_s, _end_late, (limit_s,))
    timer.daemon = True
    timer.start()


def _end_late(limit_s: float) -> None:
    log.error(
        "ended_late", limit_s=limit_s, consequence="unwritten data is lost; events answered after a commit are not"
    )
    os._exit(LATE_EXIT_CODE)
