"""How an owner opens its spool: SQLite recovers it, and what SQLite cannot read is saved into a new file.

What SQLite recovers is what there is. Where that is less than was there, it is told once, as an incident.
"""

from __future__ import annotations

import sqlite3
from typing import IO, NamedTuple

import structlog

from forebay.clock import now_ms
from forebay.errors import SpoolDamaged, SpoolUnusable
from forebay.spool import database, doubt, log_look, writing
from forebay.spool.files import OpenFiles, SpoolFiles
from forebay.spool.records import Totals
from forebay.spool.rescue import repair
from forebay.spool.reserve import Reserve, is_disk_full
from forebay.spool.statements import SQL

log = structlog.get_logger("forebay.spool")


class Incident(NamedTuple):
    """Something that happened to the files."""

    kind: str
    detail: str


class Opened(NamedTuple):
    """A spool that was opened, and what was known of it then."""

    connection: sqlite3.Connection
    open_files: OpenFiles
    last_group_id: int
    totals: Totals


def open_spool(files: SpoolFiles, lock: IO[str], reserve: Reserve) -> Opened:
    """Open the spool that `lock` is held for.

    A file is saved only if it is certainly a spool: somebody else's is refused, and left as it is.

    Raises:
        SpoolUnusable: it cannot be opened, or is no spool, or is damaged and cannot be saved.
    """
    was_opened = database.was_opened(lock)
    try:
        cause = _find_cause(files, was_opened=was_opened)
        incident = _look_at_log(files, lock) if was_opened and not cause else None
    except OSError as error:
        raise SpoolUnusable(f"DATABASE_URL: {files.path} cannot be opened: {error.strerror or error}") from error
    opened = None
    if not cause:
        try:
            opened = _open_with_room(files, reserve, incident)
        except SpoolDamaged as error:
            if not was_opened and not repair.holds_events(files):
                raise
            cause = error.cause
    if opened is None:
        repair.repair(files, cause)
        opened = _open(files, incident)
    database.note_opened(lock)
    return opened


def _find_cause(files: SpoolFiles, *, was_opened: bool) -> str:
    """Return why what is in the file has to be saved before it is opened, empty if nothing says so."""
    if files.marker.exists():
        return "it was found to be damaged"
    if files.database.exists():
        is_emptied = not files.database.stat().st_size and (was_opened or _log_bytes(files) > 0)
    else:
        is_emptied = _log_bytes(files) > 0
    return repair.EMPTIED if is_emptied else ""


def _log_bytes(files: SpoolFiles) -> int:
    return files.log.stat().st_size if files.log.exists() else 0


def _look_at_log(files: SpoolFiles, lock: IO[str]) -> Incident | None:
    """Keep a log that SQLite would take for an empty one, and write over; return what is to be told."""
    if not files.log.exists():
        # An owner that ended in order leaves none.
        if database.was_closed(lock):
            return None
        return Incident("log_missing", "its log is not there, and the last owner did not end in order")
    if not log_look.is_header_broken(files.read_log_start()):
        return None
    aside = files.move_log_aside()
    detail = f"its log does not begin as SQLite left it, so that nothing in it counts; kept as {aside.name}"
    return Incident("log_unreadable", detail)


def _open_with_room(files: SpoolFiles, reserve: Reserve, incident: Incident | None) -> Opened:
    try:
        return _open(files, incident)
    except SpoolUnusable as error:
        if error.__cause__ is None or not is_disk_full(error.__cause__):
            raise
        # Opening takes some room too, and what waits is to be delivered also from a full disk.
        reserve.give_up(str(error))
        return _open(files, incident)


def _open(files: SpoolFiles, incident: Incident | None) -> Opened:
    connection = database.connect_as_it_is(files.path)
    open_files = None
    try:
        open_files = OpenFiles(files)
        # Before anything of ours is written over it.
        cut_off = _look_behind(open_files)
        is_in_doubt = files.doubt.exists()
        if is_in_doubt:
            _settle_doubt(connection, files, open_files)
        else:
            # A process that was killed may not have come to its sync.
            open_files.sync_log()
        if cut_off:
            # So that it is told once.
            writing.empty_log(connection)
        database.bring_up_to_date(connection)
        if incident:
            _tell(connection, incident)
        # After a sync that failed it is known why.
        if cut_off and not is_in_doubt:
            _tell(connection, cut_off)
        opened = Opened(
            connection,
            open_files,
            writing.last_group_id(connection),
            writing.read_totals(connection),
        )
    except BaseException as error:
        if isinstance(error, OSError) or doubt.may_be_committed(error):
            files.mark_doubt()
        connection.close()
        if open_files is not None:
            open_files.close()
        if isinstance(error, sqlite3.Error):
            raise database.unusable(files.path, "opened", error) from error
        if isinstance(error, OSError):
            raise SpoolUnusable(f"DATABASE_URL: {files.path} cannot be opened: {error.strerror}") from error
        raise
    return opened


def _settle_doubt(connection: sqlite3.Connection, files: SpoolFiles, open_files: OpenFiles) -> None:
    """Have on the disk what SQLite counts of a log of which a sync has failed."""
    connection.execute("BEGIN IMMEDIATE")  # nobody else writes meanwhile
    try:
        open_files.write_log_again()
    finally:
        connection.execute("ROLLBACK")
    files.doubt.unlink()


def _look_behind(open_files: OpenFiles) -> Incident | None:
    """Return what is to be told of a commit in the log that SQLite does not count."""
    frames = open_files.count_frames()
    behind = log_look.find_commit_behind(open_files.read_log, frames)
    if behind is None:
        return None
    detail = (
        f"another commit ends at frame {behind} of its log, behind frame {frames}, the last that SQLite recovers: the "
        "process ended or the power went while it was being written, or the log was damaged on the disk and what lay "
        f"behind frame {frames} is lost"
    )
    return Incident("log_cut_off", detail)


def _tell(connection: sqlite3.Connection, incident: Incident) -> None:
    log.error(incident.kind, detail=incident.detail)
    with writing.unless_full():
        connection.execute(SQL["report"], (now_ms(), incident.kind, incident.detail))
