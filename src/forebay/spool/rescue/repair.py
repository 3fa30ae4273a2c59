"""Rescues a damaged spool: moves it away, saves everything that can be read into a new one, and puts that in its place.

From the first step to the last the marker tells that this is under way, and the name of the damaged file. So it may be
interrupted at any moment, and begins again at the next start. The file that was moved away is never changed.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from forebay.errors import SpoolUnusable
from forebay.spool import database
from forebay.spool.codec import GroupCodec
from forebay.spool.files import PAGE_BYTES, SpoolFiles, sync_folder, write_synced
from forebay.spool.rescue import salvage
from forebay.spool.rescue.pages import Pages, open_pages
from forebay.spool.rescue.trees import read_rows
from forebay.spool.store import Store

EMPTIED = "the file is empty, and was not when it was last opened"

log = structlog.get_logger("forebay.spool")


class _Task(NamedTuple):
    """A rescue: the names that the damaged files get, or got already, and the cause."""

    moved: SpoolFiles
    cause: str

    @property
    def kind(self) -> str:
        """The kind of the incident; a file that was emptied is not called damaged."""
        return "emptied" if self.cause == EMPTIED else "damaged"


def is_spool(files: SpoolFiles) -> bool:
    """Return whether a file that SQLite cannot read contains a thing that only a spool contains."""
    codec = GroupCodec()
    with open_pages(files.database) as pages:
        if pages.header is not None and pages.header.application_id == database.APPLICATION_ID:
            return True
        return any(isinstance(salvage.verify(row, codec), salvage.Group) for row in read_rows(pages))


def repair(files: SpoolFiles, cause: str) -> None:
    """Save the contents of a damaged or emptied spool, which the caller owns and nobody has open.

    Raises:
        SpoolUnusable: this failed, for instance on a full disk; the next start tries again.
    """
    try:
        task = _begin(files, cause)
        cause = task.cause
        happened = "spool_emptied" if cause == EMPTIED else "spool_damaged"
        log.error(happened, cause=cause, moved_to=str(task.moved.database))
        _move_away(files, task.moved)
        _save(files, task)
        # The spool is sound now.
        files.damage_marker.unlink()
        sync_folder(files.database.parent)
    except (OSError, sqlite3.Error) as error:
        raise SpoolUnusable(
            f"DATABASE_URL: {files.path} is damaged ({cause}), and its contents cannot be saved: {error}; the next "
            "start tries again"
        ) from error


def _begin(files: SpoolFiles, cause: str) -> _Task:
    """Choose a name for the damaged file, and write it into the marker."""
    marker = files.damage_marker
    name, _, found = marker.read_text(encoding="utf-8").partition("\n") if marker.exists() else ("", "", "")
    cause = found.strip() or cause
    if name:
        return _Task(SpoolFiles(files.database.with_name(name)), cause)
    moved = files.new_name_away()
    write_synced(marker, f"{moved.database.name}\n{cause}\n")
    return _Task(moved, cause)


def _move_away(files: SpoolFiles, moved: SpoolFiles) -> None:
    # The log moves first: SQLite deletes a log that it finds beside an empty database.
    for file, target in reversed([*zip(files.of_sqlite, moved.of_sqlite, strict=True)]):
        with contextlib.suppress(FileNotFoundError):
            if not target.exists():
                file.rename(target)
    sync_folder(files.database.parent)


def _save(files: SpoolFiles, task: _Task) -> None:
    SpoolFiles(files.rescued).remove_sqlite()
    with (
        _written_back(files, task.moved) as pages,
        contextlib.closing(Store(database.connect(files.rescued))) as store,
    ):
        # Nobody uses it before it is whole, and it is synced by then.
        store.connection.execute("PRAGMA synchronous = OFF")
        saved = salvage.save(read_rows(pages), store)
        detail = _describe(task, saved)
        store.report(task.kind, detail)
        store.connection.execute("PRAGMA synchronous = FULL")
        store.empty_log()
    log.error("spool_saved", **saved.totals._asdict(), detail=detail)
    files.rescued.rename(files.database)
    sync_folder(files.database.parent)


@contextlib.contextmanager
def _written_back(files: SpoolFiles, moved: SpoolFiles) -> Iterator[Pages]:
    """Yield the pages of a database, with the commits in them that SQLite recovers from its log."""
    if not moved.wal.exists() or not moved.wal.stat().st_size:
        with open_pages(moved.database) as pages:
            yield pages
        return
    copy = SpoolFiles(files.rescue_copy)
    try:
        _copy(moved, copy)
        _write_log_back(copy.database)
        with open_pages(copy.database) as pages:
            yield pages
    finally:
        copy.remove_sqlite()


def _copy(moved: SpoolFiles, copy: SpoolFiles) -> None:
    copy.remove_sqlite()
    copy.database.touch()
    if moved.database.exists():
        shutil.copyfile(moved.database, copy.database)
    if copy.database.stat().st_size < PAGE_BYTES:
        # SQLite deletes a log beside an empty file. A page of zeros prevents that; the log holds all that counts.
        with copy.database.open("r+b") as file:
            file.truncate(PAGE_BYTES)
    shutil.copyfile(moved.wal, copy.wal)


def _write_log_back(copy: Path) -> None:
    # Even if SQLite cannot read the file, it writes the log back when the connection is closed.
    with contextlib.closing(sqlite3.connect(copy)) as connection, contextlib.suppress(sqlite3.DatabaseError):
        # If the first page does not tell the size of pages, SQLite takes its default, and then not the log.
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _describe(task: _Task, saved: salvage.Saved) -> str:
    totals, before = saved
    of_events = f" of {before.events}" if before else ""
    of_letters = f" of {before.dead_letters}" if before else ""
    return (
        f"{task.cause}; it is kept as {task.moved.database.name}; saved: {totals.groups} groups with {totals.events}"
        f"{of_events} events, {totals.dead_letters}{of_letters} dead letters"
    )
