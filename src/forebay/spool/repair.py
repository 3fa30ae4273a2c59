"""A damaged spool is moved aside, what can be read of it is saved into a new one, and the new one takes its place.

The mark beside the file says from the first step to the last that this is under way, and where the damaged file is. So
it can end at any moment and begins again at the next start; what was moved aside is never changed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import structlog

from forebay.errors import SpoolUnusable
from forebay.spool import database, marks, salvage
from forebay.spool.pages import open_pages
from forebay.spool.statements import SQL
from forebay.spool.trees import read_rows
from forebay.spool.writing import now_ms

log = structlog.get_logger("forebay.spool")


def repair(path: Path, cause: str) -> None:
    """Save what a damaged spool holds; the caller owns it, and nobody has it open.

    Raises:
        SpoolUnusable: that was not possible, for instance for want of room; the next start tries again.
    """
    place = path.resolve()
    try:
        aside, cause = marks.name_aside(place, cause)
        log.error("spool_damaged", cause=cause, moved_to=str(aside))
        _move_aside(place, aside)
        _save(place, aside, cause)
    except (OSError, sqlite3.Error) as error:
        raise SpoolUnusable(
            f"DATABASE_URL: {path} is damaged ({cause}), and what is in it cannot be saved: {error}; the next start "
            "tries again"
        ) from error


def _move_aside(place: Path, aside: Path) -> None:
    # The log moves first: SQLite deletes one that it finds beside an empty database.
    for side in reversed(marks.SIDES):
        with contextlib.suppress(FileNotFoundError):
            if not Path(f"{aside}{side}").exists():
                Path(f"{place}{side}").rename(f"{aside}{side}")
    marks.bring_log(place, aside)
    marks.sync_folder(place.parent)


def _save(place: Path, aside: Path, cause: str) -> None:
    fresh = place.with_name(f"{place.name}.saving")
    _remove(fresh)
    with contextlib.closing(database.connect(fresh)) as connection, open_pages(aside, Path(f"{aside}-wal")) as pages:
        # It is not in use before it is whole, and synced by then.
        connection.execute("PRAGMA synchronous = OFF")
        saved = salvage.save(read_rows(pages), connection)
        told = _tell(cause, aside, saved)
        connection.execute(SQL["report"], (now_ms(), "damaged", told))
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.error("spool_saved", **saved.totals._asdict(), detail=told)
    _take_its_place(fresh, place)
    marks.remove(place)


def _take_its_place(fresh: Path, place: Path) -> None:
    fresh.rename(place)
    marks.sync_folder(place.parent)


def _tell(cause: str, aside: Path, saved: salvage.Saved) -> str:
    totals, held = saved
    of_events = f" of {held.events}" if held else ""
    of_letters = f" of {held.dead_letters}" if held else ""
    return (
        f"{cause}; the damaged file is kept as {aside.name}; saved: {totals.groups} groups with {totals.events}"
        f"{of_events} events, {totals.dead_letters}{of_letters} dead letters"
    )


def _remove(path: Path) -> None:
    for side in marks.SIDES:
        Path(f"{path}{side}").unlink(missing_ok=True)
