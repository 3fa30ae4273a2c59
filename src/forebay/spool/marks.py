"""The mark beside a damaged spool: it says, from when damage is found until it is repaired, what is going on."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

SIDES = ("", "-wal", "-shm")
"""What the names of SQLite's files end with."""

_SAME_SECOND_MAX = 100


def mark(path: Path, cause: str) -> None:
    """Leave a mark that the spool is damaged, which the next start finds."""
    marker = _marker(path.resolve())
    if not marker.exists():
        _write(marker, f"\n{cause}\n")


def is_marked(path: Path) -> bool:
    """Return whether the spool was found to be damaged before."""
    return _marker(path.resolve()).exists()


def name_aside(place: Path, cause: str) -> tuple[Path, str]:
    """Return where the damaged file goes, or went already, and why; and see to it that the mark says so."""
    marker = _marker(place)
    name, _, found = marker.read_text(encoding="utf-8").partition("\n") if marker.exists() else ("", "", "")
    cause = found.strip() or cause
    if not name:
        name = _new_name(place)
        _write(marker, f"{name}\n{cause}\n")
    return place.with_name(name), cause


def remove(place: Path) -> None:
    """Take the mark away: the spool is sound."""
    _marker(place).unlink()
    sync_folder(place.parent)


def keep_log(path: Path, cause: str) -> None:
    """Leave a mark, and keep the log as it is: SQLite deletes it when it closes the file."""
    place = path.resolve()
    mark(place, cause)
    # Renamed when it is whole: until then the log itself is still there.
    partial = Path(f"{place}-wal.partial")
    shutil.copyfile(f"{place}-wal", partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(f"{place}-wal.kept")
    sync_folder(place.parent)


def bring_log(place: Path, aside: Path) -> None:
    """Put a log that was kept beside the file that was moved."""
    kept = Path(f"{place}-wal.kept")
    if kept.exists():
        kept.rename(f"{aside}-wal")


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on disk: files that were made, renamed and deleted."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _marker(place: Path) -> Path:
    return place.with_name(f"{place.name}.damaged")


def _new_name(place: Path) -> str:
    name = f"{place.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = [name, *(f"{name}-{number}" for number in range(2, _SAME_SECOND_MAX))]
    return next(name for name in names if not place.with_name(name).exists())


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
