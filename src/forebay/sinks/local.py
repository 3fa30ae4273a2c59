"""The embedded event store: one SQLite file in place of OpenSearch, for a trial or a small installation.

The spool forgets an event once it is delivered, so a bulk is delivered only after SQLite has synced it here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import structlog
from msgspec import Meta, Raw, Struct

from forebay.errors import SinkUnreachable
from forebay.model import DELIVERED, DUPLICATE, Entry, Outcome, Verdict, entry_address, entry_document
from forebay.sinks.port import Query, document_path

log = structlog.get_logger("forebay.local")

T = TypeVar("T")
Row = tuple[str, str, str, str]

BUSY_TIMEOUT_S = 5
"""How long to wait for somebody else who is writing to the file."""

SETTINGS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")

SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS events (
    index_name TEXT NOT NULL,
    log_id TEXT NOT NULL,
    received_at TEXT NOT NULL, -- UTC to the microsecond, so that the order of the text is that of time
    document TEXT NOT NULL,
    UNIQUE (index_name, log_id)
) STRICT;
CREATE INDEX IF NOT EXISTS events_received_at ON events (received_at);
COMMIT;
"""

INSERT = "INSERT INTO events (index_name, log_id, received_at, document) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
TABLE = "SELECT count(*) FROM sqlite_schema WHERE name = 'events'"
SEARCH = """
SELECT document FROM events WHERE received_at > :after AND matches(document)
ORDER BY received_at DESC, rowid DESC LIMIT :limit
"""
COUNT = "SELECT count(*) FROM events WHERE received_at > :after AND matches(document)"


class _Receipt(Struct):
    received_at: Annotated[datetime, Meta(tz=True)]


_decode_receipt = msgspec.json.Decoder(_Receipt).decode


class LocalSink:
    """A `Sink`. All work on its connection is done by one thread, a bulk at a time."""

    def __init__(self, path: Path) -> None:
        self.place = f"the embedded store at {path}"
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._worker = ThreadPoolExecutor(1, "local-store")

    async def open(self) -> None:
        """Make the file, if that can be done now."""
        try:
            await self._call(self._connect)
        except sqlite3.Error as error:
            log.warning("sink_unreachable", cause=f"{self._path}: {error}", consequence="events wait in the spool")

    def expect(self, index: str) -> None:
        """Do nothing: all indices are in one table."""

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        """Return what became of each entry; none that can be read is delivered where SQLite fails."""
        return await self._call(lambda: self._store(entries))

    def repair(self, entry: Entry) -> Entry:
        """Return the entry as it is: here none is refused that could be read otherwise."""
        return entry

    async def close(self) -> None:
        """Finish the bulk that is under way and close the file."""
        await self._call(self._disconnect)
        self._worker.shutdown(wait=False)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _store(self, entries: list[Entry]) -> list[Outcome]:
        rows = [_read_entry(entry) for entry in entries]
        try:
            connection = self._connect()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                return [row if isinstance(row, Outcome) else _insert(connection, row) for row in rows]
        except sqlite3.Error as error:
            # Whatever is wrong may be wrong with the connection.
            self._disconnect()
            error_type = getattr(error, "sqlite_errorname", type(error).__name__)
            return [Outcome(Verdict.RETRY, error_type, f"{self._path}: {error}", whole=True)] * len(entries)

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                for setting in SETTINGS:
                    connection.execute(setting)
                connection.executescript(SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class LocalReader:
    """An `EventReader` that reads beside a running server; a file that is not there yet holds no events."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def search(self, query: Query) -> list[Raw]:
        """Return documents, newest `received_at` first (`SinkUnreachable` where the file cannot be read)."""
        rows = await asyncio.to_thread(self._read, SEARCH, query)
        return [Raw(document) for (document,) in rows]

    async def count(self, query: Query) -> int:
        """Count documents (`SinkUnreachable` where the file cannot be read)."""
        return sum(count for (count,) in await asyncio.to_thread(self._read, COUNT, query))

    async def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def _read(self, statement: str, query: Query) -> list[tuple[Any]]:
        if not self._path.exists():
            return []
        after = "" if query.received_after is None else _sortable(datetime.fromisoformat(query.received_after))
        wanted = [(document_path(field).split("."), value) for field, value in query.where.items()]
        try:
            with contextlib.closing(self._open()) as connection:
                (is_made,) = connection.execute(TABLE).fetchone()
                if not is_made:
                    return []
                connection.create_function("matches", 1, lambda document: _matches(document, wanted))
                return connection.execute(statement, {"after": after, "limit": query.limit}).fetchall()
        except sqlite3.Error as error:
            raise SinkUnreachable(f"the embedded store at {self._path} cannot be read: {error}") from error

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)


def _read_entry(entry: Entry) -> Row | Outcome:
    """Return an entry's row, or that it is dead because it can never be read."""
    try:
        address = entry_address(entry)
        document = entry_document(entry)
        return address.index, address.log_id, _sortable(_decode_receipt(document).received_at), document.decode()
    except (ValueError, RecursionError) as error:
        return Outcome(Verdict.DEAD, "unreadable_entry", str(error))


def _insert(connection: sqlite3.Connection, row: Row) -> Outcome:
    return DELIVERED if connection.execute(INSERT, row).rowcount else DUPLICATE


def _sortable(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def _matches(document: str, wanted: Sequence[tuple[Sequence[str], str]]) -> bool:
    if not wanted:
        return True
    # A number stays the text that the client wrote, as the values of a `flat_object` do in OpenSearch.
    found = json.loads(document, parse_int=str, parse_float=str)
    return all(_holds(found, path, value) for path, value in wanted)


def _holds(found: Any, path: Sequence[str], wanted: str) -> bool:
    """Return whether a value stands at a path; an array stands for each of its elements."""
    if isinstance(found, list):
        return any(_holds(element, path, wanted) for element in found)
    if path:
        return isinstance(found, Mapping) and _holds(found.get(path[0]), path[1:], wanted)
    if isinstance(found, bool):
        return wanted == str(found).lower()
    return bool(found == wanted)
