"""The months of the embedded store: what they hold, and how they are deleted beside a running server."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from forebay.errors import SinkUnreachable
from forebay.sinks.local import BUSY_TIMEOUT_S, TABLE
from forebay.sinks.months import StoredMonth, month_of

T = TypeVar("T")

CHUNK_ROWS = 1_000
"""How many events go at once: the server's bulks wait no longer than that takes."""

LIST = "SELECT index_name, count(*), sum(length(CAST(document AS BLOB))) FROM events GROUP BY index_name"
DELETE = "DELETE FROM events WHERE rowid IN (SELECT rowid FROM events WHERE index_name = ? LIMIT ?)"


class LocalMonths:
    """A `MonthKeeper`. The file does not shrink: SQLite uses the room for the events that come."""

    def __init__(self, path: Path, environment: str) -> None:
        self._path = path
        self._environment = environment

    async def list_months(self) -> list[StoredMonth]:
        """Return the months, oldest first (`SinkUnreachable` where the file cannot be read)."""
        months = await asyncio.to_thread(self._call, _list, [])
        return sorted(month for month in months if month_of(month.name, self._environment))

    async def delete_month(self, index: str) -> None:
        """Delete a month's events (`SinkUnreachable` where the file cannot be written)."""
        if month_of(index, self._environment) is None:
            raise ValueError(f"{index} is no month of {self._environment}")
        await asyncio.to_thread(self._call, lambda connection: _delete(connection, index), None)

    async def close(self) -> None:
        """Do nothing: the file is open only while it is used."""

    def _call(self, work: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """Return what the work returns; `nothing` where no event was ever stored."""
        if not self._path.exists():
            return nothing
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        try:
            with contextlib.closing(
                sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            ) as connection:
                (is_made,) = connection.execute(TABLE).fetchone()
                return work(connection) if is_made else nothing
        except sqlite3.Error as error:
            raise SinkUnreachable(f"the embedded store at {self._path}: {error}") from error


def _list(connection: sqlite3.Connection) -> list[StoredMonth]:
    return [StoredMonth(*row) for row in connection.execute(LIST)]


def _delete(connection: sqlite3.Connection, index: str) -> None:
    while connection.execute(DELETE, (index, CHUNK_ROWS)).rowcount:
        pass
