"""File descriptors: each connection takes one, and the process needs some for everything else."""

from __future__ import annotations

import resource

import structlog

log = structlog.get_logger("forebay.intake")

DESCRIPTORS_RESERVED = 128
"""For the database and its log, connections to the sink, and whatever a library opens; about 50 are in use."""


def fit_connections(connections_max: int) -> int:
    """Return how many connections there can be, raising the process's own limit as far as it may.

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
