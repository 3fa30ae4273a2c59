"""Checks the room that is left for all spools: up to their limit, as the server counts it, and on their disk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from forebay.doctor import spool_state
from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok, warn
from forebay.errors import SpoolError
from forebay.spool.files import SpoolFiles

GIB = 1024**3
FULL_SHARE = 0.8
DISK_BYTES_LOW = GIB
DISK_BYTES_MIN = GIB // 4


def check(context: Context) -> Iterator[Finding]:
    """Compare pending events and dead letters with the limit, and the files with their disk."""
    folder = context.settings.database_url.resolve().parent
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        yield fail(f"{folder}: {error.strerror}", "correct DATABASE_URL, or mount it")
        return
    stored_bytes = sum(map(_count_stored, context.spools))
    file_bytes = sum(map(count_file_bytes, context.spools))
    yield from judge_room(stored_bytes, context.settings.spool_bytes_max, file_bytes, free_bytes)


def judge_room(stored_bytes: int, bytes_max: int, file_bytes: int, free_bytes: int) -> Iterator[Finding]:
    """Judge the room for all spools."""
    text = f"{stored_bytes / GIB:.2f} GiB of {bytes_max / GIB:.2f} GiB (FOREBAY_SPOOL_BYTES_MAX)"
    advice = "find out why the sink takes no events; a larger FOREBAY_SPOOL_BYTES_MAX gains time"
    if stored_bytes >= bytes_max:
        yield fail(f"{text}: full, clients get 503", advice)
    elif stored_bytes >= bytes_max * FULL_SHARE:
        yield warn(f"{text}: nearly full", advice)
    else:
        yield ok(text)
    disk = f"{file_bytes / GIB:.2f} GiB in files, {free_bytes / GIB:.2f} GiB free on their disk"
    if free_bytes < DISK_BYTES_MIN:
        yield fail(f"{disk}: the next commits may fail, and clients get 503", "free disk space")
    elif free_bytes < min(DISK_BYTES_LOW, bytes_max - stored_bytes):
        yield warn(disk, "free disk space")
    elif free_bytes < bytes_max - stored_bytes:
        advice = "set FOREBAY_SPOOL_BYTES_MAX to the room on the disk, so that the limit comes before the disk's end"
        yield warn(f"{disk}, less than the spool may grow by", advice)
    else:
        yield ok(disk)


def count_file_bytes(path: Path) -> int:
    """Return the bytes that a spool takes on disk with its log."""
    sizes = []
    for file in SpoolFiles(path).of_sqlite:
        with contextlib.suppress(FileNotFoundError):
            sizes.append(file.stat().st_size)
    return sum(sizes)


def _count_stored(path: Path) -> int:
    try:
        totals = spool_state.read_state(path).totals
    except SpoolError:
        return 0  # its own line gives the reason
    return totals.stored_bytes + totals.dead_bytes
