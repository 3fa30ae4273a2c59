"""Where spools lie: one file for each worker, all beside the one that `DATABASE_URL` names."""

from __future__ import annotations

import re
from pathlib import Path


def spool_path(database: Path, slot: int) -> Path:
    """Return the spool of the worker in a slot: the named file, `name.2.db`, `name.3.db` and so on."""
    return database if slot == 1 else database.with_name(f"{database.stem}.{slot}{database.suffix}")


def find_spools(database: Path, *, end: str = "") -> dict[int, Path]:
    """Return the spools that are there, or of which a file with this end is there, by slot, lowest first."""
    form = re.compile(rf"{re.escape(database.stem)}\.([1-9][0-9]*){re.escape(database.suffix)}{re.escape(end)}")
    found = {1: database} if database.with_name(f"{database.name}{end}").exists() else {}
    for path in database.parent.glob("*"):
        match = form.fullmatch(path.name)
        if match and int(match[1]) > 1:
            found[int(match[1])] = path.with_name(path.name.removesuffix(end))
    return dict(sorted(found.items()))
