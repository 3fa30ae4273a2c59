"""How an owner opens its spool: a sound file as it is, a damaged one after what it holds was saved into a new one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import IO, NamedTuple

from forebay.errors import SpoolDamaged, SpoolUnusable
from forebay.spool import damage, database, marks, repair, writing
from forebay.spool.records import Totals
from forebay.spool.reserve import Reserve, is_disk_full


class Opened(NamedTuple):
    """A spool that was opened, and what was known of it then."""

    connection: sqlite3.Connection
    last_group_id: int
    totals: Totals
    was_interrupted: bool


def open_spool(path: Path, lock: IO[str], reserve: Reserve) -> Opened:
    """Open the spool that `lock` is held for.

    A file is saved only where it is certainly a spool: somebody else's is refused, and left as it is.

    Raises:
        SpoolUnusable: it cannot be opened, or is no spool, or is damaged and cannot be saved.
    """
    was_opened = database.was_opened(lock)
    cause = _find_damage(path, was_opened=was_opened)
    opened = None
    if not cause:
        try:
            opened = _open_with_room(path, reserve)
        except SpoolDamaged as error:
            if not was_opened and not damage.holds_events(path):
                raise
            cause = error.cause
    if opened is None:
        repair.repair(path, cause)
        opened = _open(path)
    database.note_opened(lock)
    return opened


def _find_damage(path: Path, *, was_opened: bool) -> str:
    try:
        if marks.is_marked(path):
            return "it was found to be damaged"
        return damage.find_before_opening(path, was_opened=was_opened)
    except OSError as error:
        raise SpoolUnusable(f"DATABASE_URL: {path} cannot be opened: {error.strerror or error}") from error


def _open_with_room(path: Path, reserve: Reserve) -> Opened:
    try:
        return _open(path)
    except SpoolUnusable as error:
        if error.__cause__ is None or not is_disk_full(error.__cause__):
            raise
        # Opening takes some room too, and what waits is to be delivered also from a full disk.
        reserve.give_up(str(error))
        return _open(path)


def _open(path: Path) -> Opened:
    connection = database.connect(path)
    with database.closed_on_failure(connection):
        try:
            opened = Opened(
                connection,
                writing.last_group_id(connection),
                writing.read_totals(connection),
                writing.owner_at_work(connection),
            )
        except sqlite3.Error as error:
            raise database.unusable(path, "read", error) from error
        # A disk that is full must not keep a server from delivering what it has.
        with contextlib.suppress(sqlite3.OperationalError):
            writing.set_owner_at_work(connection, at_work=True)
    return opened
