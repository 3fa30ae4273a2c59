"""The lines about spools: each file's own, and those about all of them together."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from forebay.clock import now_ms
from forebay.doctor import spool_diagnosis as diagnosis
from forebay.doctor import spool_look as checkup
from forebay.doctor.spool_diagnosis import Drain
from forebay.doctor.spool_look import Look
from forebay.errors import SpoolError
from forebay.findings import Finding, Level
from forebay.settings import Settings
from forebay.spool.files import find_spools

WATCH_S = 3.0
"""How long to watch what moves."""


def look_at_spool(settings: Settings, path: Path) -> list[Finding]:
    """Look into a spool, and watch it for some seconds where a server is at work on it."""
    what = f"spool {path.name}"
    owner = checkup.find_owner(path)
    is_marked, is_in_doubt = checkup.is_marked(path), checkup.is_in_doubt(path)
    damage = list(diagnosis.judge_damage(what, checkup.find_aside(path), is_marked=is_marked, is_in_doubt=is_in_doubt))
    if not path.exists():
        return [diagnosis.judge_absence(what, path, owner), *damage]
    try:
        look = checkup.look(path)
        drain = _watch(path, look) if owner is not None and look.totals.events else None
    except SpoolError as error:
        return [
            Finding(Level.FAIL, what, str(error), "see the server's line and its log before you restart it"),
            *damage,
        ]
    settle_s = settings.bulk_interval_s + settings.bulk_timeout_s
    return [
        *diagnosis.judge_owner(what, owner, look, is_workers=path != settings.database_url),
        *diagnosis.judge_pending(what, look, drain, now_ms(), settle_s),
        *diagnosis.judge_refused(what, look.refused),
        *diagnosis.judge_dead(what, look.dead_types),
        *diagnosis.judge_incidents(what, look.incidents),
        *damage,
    ]


def look_at_room(settings: Settings, paths: list[Path]) -> list[Finding]:
    """Say how much more the spools take together, as the server counts it: pending events and dead letters."""
    stored_bytes = 0
    for path in paths:
        # Of one that cannot be read its own line says so.
        with contextlib.suppress(SpoolError):
            totals = checkup.look(path).totals
            stored_bytes += totals.stored_bytes + totals.dead_bytes
    folder = settings.database_url.resolve().parent
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        return [Finding(Level.FAIL, "spool room", f"{folder}: {error.strerror}", "correct DATABASE_URL, or mount it")]
    file_bytes = sum(checkup.count_file_bytes(path) for path in paths)
    return list(diagnosis.judge_room("spool room", stored_bytes, settings.spool_bytes_max, file_bytes, free_bytes))


def look_at_integrity(path: Path, seconds_max: float | None) -> list[Finding]:
    """Check a spool's file and every group in it."""
    integrity = checkup.check_integrity(path, seconds_max)
    return list(diagnosis.judge_integrity(f"file {path.name}", integrity, seconds_max))


def find(settings: Settings) -> list[Path]:
    """Return the spools that are there."""
    return list(find_spools(settings.database_url).values())


def _watch(path: Path, first: Look) -> Drain:
    time.sleep(WATCH_S)
    second = checkup.look(path)
    return diagnosis.measure_drain(first, second, checkup.count_left(path, first.last_id))
