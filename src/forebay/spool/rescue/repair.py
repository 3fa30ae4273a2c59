"""A damaged spool is moved aside, what can be read of it is saved into a new one, and the new one takes its place.

The mark beside the file says from the first step to the last that this is under way, and where the damaged file is. So
it can end at any moment and begins again at the next start; what was moved aside is never changed.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from forebay.clock import now_ms
from forebay.errors import SpoolUnusable
from forebay.spool import database
from forebay.spool.codec import BodyCodec
from forebay.spool.files import SIDES, SpoolFiles, write_synced
from forebay.spool.rescue import salvage
from forebay.spool.rescue.pages import PAGE_BYTES, Pages, open_pages
from forebay.spool.rescue.trees import read_rows
from forebay.spool.statements import SQL

EMPTIED = "the file is empty, and was not when it was last opened"

log = structlog.get_logger("forebay.spool")


class _Task(NamedTuple):
    """A repair: where the file goes, or went already, and why."""

    aside: Path
    cause: str

    @property
    def kind(self) -> str:
        """What happened, in a word: somebody who empties a file damages none."""
        return "emptied" if self.cause == EMPTIED else "damaged"


def mark(files: SpoolFiles, cause: str) -> None:
    """Leave a mark that the spool is damaged, which the next start finds."""
    if not files.marker.exists():
        write_synced(files.marker, f"\n{cause}\n")


def holds_events(files: SpoolFiles) -> bool:
    """Return whether there is anything in the file that only a spool holds, though SQLite cannot read it."""
    codec = BodyCodec()
    with open_pages(files.database) as pages:
        if pages.header is not None and pages.header.application_id == database.APPLICATION_ID:
            return True
        return any(isinstance(salvage.verify(row, codec), salvage.Group) for row in read_rows(pages))


def repair(files: SpoolFiles, cause: str) -> None:
    """Save what a damaged or emptied spool holds; the caller owns it, and nobody has it open.

    Raises:
        SpoolUnusable: that was not possible, for instance for want of room; the next start tries again.
    """
    try:
        task = _begin(files, cause)
        cause = task.cause
        log.error("spool_emptied" if cause == EMPTIED else "spool_damaged", cause=cause, moved_to=str(task.aside))
        _move_aside(files, task.aside)
        _save(files, task)
        _finish(files)
    except (OSError, sqlite3.Error) as error:
        raise SpoolUnusable(
            f"DATABASE_URL: {files.path} is damaged ({cause}), and what is in it cannot be saved: {error}; the next "
            "start tries again"
        ) from error


def _begin(files: SpoolFiles, cause: str) -> _Task:
    """Choose where the file goes, and see to it that the mark says so."""
    name, _, found = files.marker.read_text(encoding="utf-8").partition("\n") if files.marker.exists() else ("", "", "")
    cause = found.strip() or cause
    if not name:
        name = files.new_aside().name
        write_synced(files.marker, f"{name}\n{cause}\n")
    return _Task(files.database.with_name(name), cause)


def _move_aside(files: SpoolFiles, aside: Path) -> None:
    # The log moves first: SQLite deletes one that it finds beside an empty database.
    for side in reversed(SIDES):
        with contextlib.suppress(FileNotFoundError):
            if not Path(f"{aside}{side}").exists():
                files.beside(side).rename(f"{aside}{side}")
    files.sync_folder()


def _save(files: SpoolFiles, task: _Task) -> None:
    fresh = files.beside(".saving")
    _remove(fresh)
    with _written_back(files, task.aside) as pages, contextlib.closing(database.connect(fresh)) as connection:
        # It is not in use before it is whole, and synced by then.
        connection.execute("PRAGMA synchronous = OFF")
        saved = salvage.save(read_rows(pages), connection)
        told = _tell(task, saved)
        connection.execute(SQL["report"], (now_ms(), task.kind, told))
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.error("spool_saved", **saved.totals._asdict(), detail=told)
    _take_its_place(fresh, files)


@contextlib.contextmanager
def _written_back(files: SpoolFiles, aside: Path) -> Iterator[Pages]:
    """Yield the pages of a database with those commits of its log in them that SQLite itself recovers."""
    aside_log = Path(f"{aside}-wal")
    if not aside_log.exists() or not aside_log.stat().st_size:
        with open_pages(aside) as pages:
            yield pages
        return
    copy = files.beside(".copy")
    try:
        _copy(aside, aside_log, copy)
        _write_log_back(copy)
        with open_pages(copy) as pages:
            yield pages
    finally:
        _remove(copy)


def _copy(aside: Path, aside_log: Path, copy: Path) -> None:
    _remove(copy)
    copy.touch()
    if aside.exists():
        shutil.copyfile(aside, copy)
    if copy.stat().st_size < PAGE_BYTES:
        # SQLite deletes a log beside an empty file. A page of zeros is none, and all of it that counts is in the log.
        with copy.open("r+b") as file:
            file.truncate(PAGE_BYTES)
    shutil.copyfile(aside_log, f"{copy}-wal")


def _write_log_back(copy: Path) -> None:
    # Also where SQLite cannot read the file, it writes the log back when it closes it.
    with contextlib.closing(sqlite3.connect(copy)) as connection, contextlib.suppress(sqlite3.DatabaseError):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _take_its_place(fresh: Path, files: SpoolFiles) -> None:
    fresh.rename(files.database)
    files.sync_folder()


def _finish(files: SpoolFiles) -> None:
    """Take the mark away: the spool is sound."""
    files.marker.unlink()
    files.sync_folder()


def _tell(task: _Task, saved: salvage.Saved) -> str:
    totals, held = saved
    of_events = f" of {held.events}" if held else ""
    of_letters = f" of {held.dead_letters}" if held else ""
    return (
        f"{task.cause}; it is kept as {task.aside.name}; saved: {totals.groups} groups with {totals.events}"
        f"{of_events} events, {totals.dead_letters}{of_letters} dead letters"
    )


def _remove(path: Path) -> None:
    for side in SIDES:
        Path(f"{path}{side}").unlink(missing_ok=True)
