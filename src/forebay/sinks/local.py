"""The embedded event store: one SQLite file in place of OpenSearch, to try Forebay out or for a small installation.

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
from msgspec import Meta, Raw, Struct, field

from forebay.byte_size import format_bytes
from forebay.errors import SinkUnreachable
from forebay.model import DELIVERED, DUPLICATE, Entry, Outcome, SameOutcome, Verdict, entry_address, entry_document
from forebay.own_indices import RECEIPT, has_own_documents
from forebay.sinks.months import StoredMonth, require_month, select_months
from forebay.sinks.port import CheckResult, Query, SinkCheck, document_path

log = structlog.get_logger("forebay.local")

T = TypeVar("T")
Row = tuple[str, str, str, str]

BUSY_TIMEOUT_S = 5
"""The longest wait for another process that writes to the file."""

CHUNK_ROWS = 1_000
"""The events that are deleted at once: meanwhile the server's bulks wait."""

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
LIST_MONTHS = "SELECT index_name, count(*), sum(length(CAST(document AS BLOB))) FROM events GROUP BY index_name"
DELETE_ROWS = "DELETE FROM events WHERE rowid IN (SELECT rowid FROM events WHERE index_name = ? LIMIT ?)"


class _Receipt(Struct):
    received_at: Annotated[datetime, Meta(tz=True)]


class _OwnDocument(Struct):
    receipt: _Receipt = field(name=RECEIPT)


_decode_receipt = msgspec.json.Decoder(_Receipt).decode
_decode_own = msgspec.json.Decoder(_OwnDocument).decode


class LocalSink:
    """A `Sink` in one file.

    One thread writes bulks, one at a time, on a connection of its own. Everything else opens the file only while it
    needs it, so that it works beside a running server. A file that is not there yet holds no events.
    """

    def __init__(self, path: Path, environment: str) -> None:
        self.location = f"the embedded store at {path}"
        self._path = path
        self._environment = environment
        self._connection: sqlite3.Connection | None = None
        self._writer = ThreadPoolExecutor(1, "local-store")

    async def open(self) -> None:
        """Make the file, if that can be done now."""
        try:
            await self._write(self._connect)
        except sqlite3.Error as error:
            log.warning("sink_unreachable", cause=f"{self._path}: {error}", consequence="events wait in the spool")

    async def prepare(self, *, with_ubi: bool = False) -> str:
        """Refuse: there is nothing to prepare."""
        del with_ubi
        raise SinkUnreachable("OPEN_SEARCH_DNS: not set; the embedded store needs no index template")

    def expect(self, index: str) -> None:
        """Do nothing: all indices are in one table."""

    async def deliver(self, entries: list[Entry]) -> Sequence[Outcome]:
        """Return the outcome of each entry. If SQLite fails, none of them counts as delivered."""
        return await self._write(lambda: self._store(entries))

    def repair(self, entry: Entry) -> Entry:
        """Return the entry as it is: no other form of it would be taken."""
        return entry

    async def search(self, query: Query) -> list[Raw]:
        """Return documents, newest `received_at` first (`SinkUnreachable` if the file cannot be read)."""
        rows = await self._ask(lambda connection: _select(connection, SEARCH, query))
        return [Raw(document) for (document,) in rows or ()]

    async def count(self, query: Query) -> int:
        """Count documents (`SinkUnreachable` if the file cannot be read)."""
        rows = await self._ask(lambda connection: _select(connection, COUNT, query))
        return sum(count for (count,) in rows or ())

    async def list_months(self) -> list[StoredMonth]:
        """Return the months, oldest first (`SinkUnreachable` if the file cannot be read)."""
        return select_months(await self._ask(_list_months) or (), self._environment)

    async def delete_month(self, index: str) -> None:
        """Delete a month's events (`SinkUnreachable` if the file cannot be written).

        The file does not shrink: SQLite uses the room for later events.
        """
        require_month(index, self._environment)
        await self._ask(lambda connection: _delete_month(connection, index), mode="rw")

    async def check(self) -> SinkCheck:
        """Read all of the months."""
        subject = f"store {self._path.name}"
        file_bytes = await asyncio.to_thread(_file_bytes, self._path)
        if file_bytes is None:
            return SinkCheck([CheckResult(subject, "no event has been delivered yet")])
        try:
            stored = await self._ask(_list_months) or []
        except SinkUnreachable as error:
            return SinkCheck([CheckResult(subject, str(error), "see the file and its disk", is_usable=False)])
        months = select_months(stored, self._environment)
        text = f"{sum(month.documents for month in months)} events in {len(months)} months"
        if own := sum(index.documents for index in stored if has_own_documents(index.name)):
            text += f", {own} of UBI"
        text += f", {format_bytes(file_bytes)}"
        return SinkCheck([CheckResult(subject, text)])

    async def close(self) -> None:
        """Finish the bulk that is under way and close the file."""
        await self._write(self._disconnect)
        self._writer.shutdown(wait=False)

    async def _write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    def _store(self, entries: list[Entry]) -> Sequence[Outcome]:
        rows = [_read_entry(entry) for entry in entries]
        try:
            connection = self._connect()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                return [row if isinstance(row, Outcome) else _insert(connection, row) for row in rows]
        except sqlite3.Error as error:
            # The connection may be at fault.
            self._disconnect()
            error_type = getattr(error, "sqlite_errorname", type(error).__name__)
            return SameOutcome(Outcome(Verdict.RETRY, error_type, f"{self._path}: {error}", whole=True), len(entries))

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

    async def _ask(self, work: Callable[[sqlite3.Connection], T], *, mode: str = "ro") -> T | None:
        """Return the result of the work on a connection of its own, or None if no event was ever stored."""
        return await asyncio.to_thread(self._ask_now, work, mode)

    def _ask_now(self, work: Callable[[sqlite3.Connection], T], mode: str) -> T | None:
        if not self._path.exists():
            return None
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        try:
            with contextlib.closing(
                sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            ) as connection:
                (is_made,) = connection.execute(TABLE).fetchone()
                return work(connection) if is_made else None
        except sqlite3.Error as error:
            verb = "read" if mode == "ro" else "changed"
            raise SinkUnreachable(f"{self.location} cannot be {verb}: {error}") from error


def _read_entry(entry: Entry) -> Row | Outcome:
    """Return an entry's row, or the outcome of one that can never be read."""
    try:
        address = entry_address(entry)
        document = entry_document(entry)
        is_own = has_own_documents(address.index)
        receipt = _decode_own(document).receipt if is_own else _decode_receipt(document)
        return address.index, address.log_id, _sortable(receipt.received_at), document.decode()
    except (ValueError, RecursionError) as error:
        return Outcome(Verdict.DEAD, "unreadable_entry", str(error))


def _insert(connection: sqlite3.Connection, row: Row) -> Outcome:
    return DELIVERED if connection.execute(INSERT, row).rowcount else DUPLICATE


def _file_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _select(connection: sqlite3.Connection, statement: str, query: Query) -> list[tuple[Any]]:
    after = "" if query.received_after is None else _sortable(datetime.fromisoformat(query.received_after))
    wanted = [(document_path(field).split("."), value) for field, value in query.fields.items()]
    connection.create_function("matches", 1, lambda document: _matches(document, wanted))
    return connection.execute(statement, {"after": after, "limit": query.limit}).fetchall()


def _list_months(connection: sqlite3.Connection) -> list[StoredMonth]:
    return [StoredMonth(*row) for row in connection.execute(LIST_MONTHS)]


def _delete_month(connection: sqlite3.Connection, index: str) -> None:
    while connection.execute(DELETE_ROWS, (index, CHUNK_ROWS)).rowcount:
        pass


def _sortable(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def _matches(document: str, wanted: Sequence[tuple[Sequence[str], str]]) -> bool:
    if not wanted:
        return True
    # A number stays the text that the client wrote, as the values of a `flat_object` do in OpenSearch.
    found = json.loads(document, parse_int=str, parse_float=str)
    return all(_has_value(found, path, value) for path, value in wanted)


def _has_value(found: Any, path: Sequence[str], wanted: str) -> bool:
    """Return whether a value stands at a path; an array stands for each of its elements."""
    if isinstance(found, list):
        return any(_has_value(element, path, wanted) for element in found)
    if path:
        return isinstance(found, Mapping) and _has_value(found.get(path[0]), path[1:], wanted)
    if isinstance(found, bool):
        return wanted == str(found).lower()
    return bool(found == wanted)
