"""How an owner opens its spool: SQLite recovers it, and what SQLite cannot read is saved into a new file.

What SQLite recovers is what there is. Where that is less than was there, it is told once, as an incident.
"""

from __future__ import annotations

import sqlite3
from typing import IO, NamedTuple

import structlog

from forebay.errors import SpoolDamaged, SpoolUnusable
from forebay.spool import database, log_look, repair, writing
from forebay.spool.files import OpenFiles, SpoolFiles
from forebay.spool.records import Totals
from forebay.spool.reserve import Reserve, is_disk_full
from forebay.spool.statements import SQL

log = structlog.get_logger("forebay.spool")


class Opened(NamedTuple):
    """A spool that was opened, and what was known of it then."""

    connection: sqlite3.Connection
    open_files: OpenFiles
    last_group_id: int
    totals: Totals
    was_interrupted: bool


def open_spool(files: SpoolFiles, lock: IO[str], reserve: Reserve) -> Opened:
    """Open the spool that `lock` is held for.

    A file is saved only if it is certainly a spool: somebody else's is refused, and left as it is.

    Raises:
        SpoolUnusable: it cannot be opened, or is no spool, or is damaged and cannot be saved.
    """
    was_opened = database.was_opened(lock)
    try:
        cause = _find_cause(files, was_opened=was_opened)
        incident = _move_broken_log_aside(files) if was_opened and not cause else ""
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


def _move_broken_log_aside(files: SpoolFiles) -> str:
    """Keep a log that SQLite would take for an empty one, and write over; return what is to be told of it."""
    if not files.log.exists():
        return ""
    with files.log.open("rb") as file:
        if not log_look.is_header_broken(file.read(log_look.HEADER_BYTES + 1)):
            return ""
    aside = files.log.rename(f"{files.new_aside()}-wal")
    files.sync_folder()
    return f"the first bytes of its log are not as SQLite left them, so that nothing in it counts; kept as {aside.name}"


def _open_with_room(files: SpoolFiles, reserve: Reserve, incident: str) -> Opened:
    try:
        return _open(files, incident)
    except SpoolUnusable as error:
        if error.__cause__ is None or not is_disk_full(error.__cause__):
            raise
        # Opening takes some room too, and what waits is to be delivered also from a full disk.
        reserve.give_up(str(error))
        return _open(files, incident)


def _open(files: SpoolFiles, incident: str) -> Opened:
    connection = database.connect_as_it_is(files.path)
    open_files = None
    try:
        open_files = OpenFiles(files)
        # Before anything of ours is written over it.
        cut_off = _look_behind(open_files)
        if files.doubt.exists():
            _settle_doubt(connection, files, open_files)
        if cut_off:
            # So that it is told once.
            writing.empty_log(connection)
        database.bring_up_to_date(connection)
        for kind, detail in (("log_unreadable", incident), ("log_cut_off", cut_off)):
            if detail:
                _tell(connection, kind, detail)
        opened = Opened(
            connection,
            open_files,
            writing.last_group_id(connection),
            writing.read_totals(connection),
            writing.owner_at_work(connection),
        )
        _say_at_work(connection)
    except BaseException as error:
        if writing.may_be_committed(error):
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


def _say_at_work(connection: sqlite3.Connection) -> None:
    try:
        writing.set_owner_at_work(connection, at_work=True)
    except sqlite3.OperationalError as error:
        # Neither a full disk nor a command that writes just now must keep a server from delivering what it has.
        if writing.may_be_committed(error):
            raise


def _settle_doubt(connection: sqlite3.Connection, files: SpoolFiles, open_files: OpenFiles) -> None:
    """Have on the disk what SQLite counts of a log of which a sync has failed."""
    connection.execute("BEGIN IMMEDIATE")  # nobody else writes meanwhile
    try:
        open_files.write_log_again()
    finally:
        connection.execute("ROLLBACK")
    files.doubt.unlink()


def _look_behind(open_files: OpenFiles) -> str:
    """Return what is to be told of a commit in the log that SQLite does not count, empty if there is none."""
    frames = open_files.count_frames()
    behind = log_look.find_commit_behind(open_files.read_log, frames)
    if behind is None:
        return ""
    return (
        f"another commit ends at frame {behind} of its log, behind frame {frames}, the last that SQLite recovers: the "
        "process ended or the power went while it was being written, or the log was damaged on the disk and what lay "
        f"behind frame {frames} is lost"
    )


def _tell(connection: sqlite3.Connection, kind: str, detail: str) -> None:
    log.error(kind, detail=detail)
    with writing.unless_full():
        connection.execute(SQL["report"], (writing.now_ms(), kind, detail))
