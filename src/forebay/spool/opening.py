"""Opens a spool for its owner: SQLite recovers it, and a file that SQLite cannot read is rescued first.

If SQLite recovers less than there was, that is reported once, as an incident.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import structlog

from forebay.errors import SpoolDamaged, SpoolUnusable
from forebay.spool import database, in_doubt, wal
from forebay.spool.files import OpenFiles, SpoolFiles
from forebay.spool.lock import OwnerLock
from forebay.spool.records import Totals
from forebay.spool.rescue import repair
from forebay.spool.reserve import Reserve, is_disk_full, unless_full
from forebay.spool.store import Store
from forebay.spool.wal import Wal

log = structlog.get_logger("forebay.spool")


class Incident(NamedTuple):
    """Something that happened to the spool's files."""

    kind: str
    detail: str


class Opened(NamedTuple):
    """A spool that was opened, and its contents in figures."""

    store: Store
    wal: Wal
    open_files: OpenFiles
    last_group_id: int
    totals: Totals


def open_spool(files: SpoolFiles, lock: OwnerLock, reserve: Reserve) -> Opened:
    """Open a spool that this process has locked.

    A file is rescued only if it is certainly a spool. Any other is refused, and stays as it is.

    Raises:
        SpoolUnusable: it cannot be opened, or is no spool, or is damaged and cannot be rescued.
    """
    try:
        cause = _find_damage(files, was_opened=lock.was_opened)
        incident = _examine_log(files, lock) if lock.was_opened and not cause else None
    except OSError as error:
        raise SpoolUnusable(f"DATABASE_URL: {files.path} cannot be opened: {error.strerror or error}") from error
    opened = None
    if not cause:
        try:
            opened = _open_with_room(files, reserve, incident)
        except SpoolDamaged as error:
            if not lock.was_opened and not repair.is_spool(files):
                raise
            cause = error.cause
    if opened is None:
        repair.repair(files, cause)
        opened = _open(files, incident)
    lock.note_opened()
    return opened


def _find_damage(files: SpoolFiles, *, was_opened: bool) -> str:
    """Return the reason to rescue the file before SQLite opens it; empty if there is none."""
    if files.damage_marker.exists():
        return "it was found to be damaged"
    if files.database.exists():
        is_emptied = not files.database.stat().st_size and (was_opened or files.measure_wal() > 0)
    else:
        is_emptied = files.measure_wal() > 0
    return repair.EMPTIED if is_emptied else ""


def _examine_log(files: SpoolFiles, lock: OwnerLock) -> Incident | None:
    """Return the incident of a log that is missing or unreadable; an unreadable one is moved away.

    SQLite would take an unreadable log for an empty one, and write over it.
    """
    if not files.wal.exists():
        # An owner that ends in order leaves none.
        if lock.was_closed:
            return None
        return Incident("log_missing", "its log is not there, and the last owner did not end in order")
    if not wal.is_unreadable(files):
        return None
    moved = files.move_wal_away()
    detail = f"its log does not begin as SQLite left it, so that nothing in it counts; kept as {moved.name}"
    return Incident("log_unreadable", detail)


def _open_with_room(files: SpoolFiles, reserve: Reserve, incident: Incident | None) -> Opened:
    try:
        return _open(files, incident)
    except SpoolUnusable as error:
        if error.__cause__ is None or not is_disk_full(error.__cause__):
            raise
        # Opening needs some room too, and pending events are delivered from a full disk as well.
        reserve.give_up(str(error))
        return _open(files, incident)


def _open(files: SpoolFiles, incident: Incident | None) -> Opened:
    store = Store(database.connect_as_it_is(files.path))
    opened_wal = None
    try:
        opened_wal = Wal(files)
        _recover(store, files, opened_wal, incident)
        return Opened(store, opened_wal, OpenFiles(files), store.last_group_id(), store.read_totals())
    except BaseException as error:
        if isinstance(error, OSError) or in_doubt.may_be_committed(error):
            files.note_doubt()
        store.close()
        if opened_wal is not None:
            opened_wal.close()
        if isinstance(error, sqlite3.Error):
            raise database.unusable(files.path, "opened", error) from error
        if isinstance(error, OSError):
            raise SpoolUnusable(f"DATABASE_URL: {files.path} cannot be opened: {error.strerror}") from error
        raise


def _recover(store: Store, files: SpoolFiles, opened_wal: Wal, incident: Incident | None) -> None:
    """Make the log safe to build on, then write into the database."""
    # Before anything of ours is written over it.
    cut_off = _find_cut_off(opened_wal)
    was_in_doubt = files.doubt.exists()
    if was_in_doubt:
        in_doubt.settle_doubt(store, files, opened_wal)
    else:
        # A process that was killed may not have come to its sync.
        opened_wal.sync()
    if cut_off:
        # It is reported once only.
        store.empty_log()
    database.bring_up_to_date(store.connection)
    if incident:
        _report(store, incident)
    # If there was a failed sync, the reason is known.
    if cut_off and not was_in_doubt:
        _report(store, cut_off)


def _find_cut_off(opened_wal: Wal) -> Incident | None:
    """Return the incident of a commit in the log that SQLite does not count."""
    found = opened_wal.find_uncounted_commit()
    if found is None:
        return None
    frames, behind = found
    detail = (
        f"another commit ends at frame {behind} of its log, behind frame {frames}, the last that SQLite recovers: the "
        "process ended or the power went while it was being written, or the log was damaged on the disk and the "
        f"commits behind frame {frames} are lost"
    )
    return Incident("log_cut_off", detail)


def _report(store: Store, incident: Incident) -> None:
    log.error(incident.kind, detail=incident.detail)
    with unless_full():
        store.report(incident.kind, incident.detail)
