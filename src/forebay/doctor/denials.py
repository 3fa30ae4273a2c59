"""Checks whether the denial list can be read, by the server and by nobody else."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from forebay.denials.entries import ENTRIES_MAX, Denial, read_entries
from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok, warn
from forebay.doctor.server import ServerSilent, ask
from forebay.errors import SettingsError

_IN_FORCE = re.compile(rb"^forebay_denials ([0-9.e+]+)$", re.MULTILINE)
FULL_SHARE = 0.9
FOR_OTHERS = 0o077


def check(context: Context) -> Iterator[Finding]:
    """Read the denial list, if there is one."""
    path = context.settings.denials_path
    try:
        entries = read_entries(path)
    except SettingsError as error:
        yield fail(str(error), "correct it: servers that run keep the former list, and none starts")
        return
    yield judge_entries(entries, context.now)
    with contextlib.suppress(ServerSilent):
        yield from judge_server(ask(context.settings, "/metrics").body, entries)
    with contextlib.suppress(FileNotFoundError):
        yield from judge_rights(path.stat(), context.settings.database_url.stat(), path)


def judge_entries(entries: Sequence[Denial], now: datetime) -> Finding:
    """Judge the number of entries."""
    kinds = Counter(entry.kind for entry in entries if not entry.is_over(now))
    if not kinds:
        return ok("nobody is shut out")
    text = f"{kinds.total()} entries ({', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))})"
    if len(entries) >= ENTRIES_MAX * FULL_SHARE:
        return warn(f"{text} of {ENTRIES_MAX} at the most", "remove some, or give new ones an end (--days)")
    return ok(text)


def judge_server(metrics: bytes, entries: Sequence[Denial]) -> Iterator[Finding]:
    """Judge the number of entries that the server has in force: if the file is gone, it keeps the former ones."""
    found = _IN_FORCE.search(metrics)
    in_force = float(found[1]) if found else 0
    if not entries and in_force:
        text = (
            f"the server has {in_force:.0f} entries in force, and the list is gone: a change or a start ends them all"
        )
        yield fail(text, "put the list back, from a backup; or restart the server to let everybody in")


def judge_rights(found: os.stat_result, database: os.stat_result, path: Path) -> Iterator[Finding]:
    """Judge the owner and the mode of the list's file by the owner of the database."""
    if found.st_uid != database.st_uid:
        text = (
            f"{path} belongs to uid {found.st_uid}, and the spool to uid {database.st_uid}: the server may not read it"
        )
        yield fail(text, f"chown {database.st_uid} it")
    if found.st_mode & FOR_OTHERS:
        yield warn(f"others may read or change {path} (mode {found.st_mode & 0o777:o})", "chmod 600 it")
