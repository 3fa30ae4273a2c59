"""Runs commands in a folder with the files of a server that has ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from msgspec import Raw

from forebay.document import Document, EventInfo, encode_entry
from forebay.history import DeadLetter, History
from forebay.model import Address, Entry
from forebay.sinks.local import LocalSink
from forebay.spool import database
from forebay.spool.beside.connecting import connect_beside
from forebay.spool.records import Transaction
from forebay.spool.store import Store

FOREBAY = (sys.executable, "-c", "import sys; from forebay.cli import main; sys.exit(main())")
"""The command line as a process of its own."""

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
INDEX = "events_local_2026-11"
HOSTILE = "[bold]\x1b[31mred\x9b2J\x7f\u202e\u2028"
HOSTILE_SHOWN = "[bold]\\u001b[31mred\\u009b2J\\u007f\\u202e\\u2028"

NUMBERS = b'{"huge": 1e400, "long": %b, "exact": 1.50, "wide": 12345678901234567890.123456789, "n": 1, "n": 2}' % (
    b"7" * 5_000
)
"""Numbers that no Python number can hold as they are written, on one line as in the output."""


class Result(NamedTuple):
    """Output and exit code of a command."""

    code: int
    out: str
    err: str

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Run(Protocol):
    """Runs a command."""

    def __call__(self, *arguments: str) -> Result: ...


class Folder:
    """The folder that a command works in."""

    def __init__(self, path: Path, spool_name: str = "sqlite3.db") -> None:
        self.path = path
        self.spool_path = path / spool_name
        self.store_path = path / "sqlite3-events.db"

    def spool(self, transaction: Transaction) -> None:
        """Write into the spool as its owner does."""
        with contextlib.closing(Store(database.connect(self.spool_path))) as store:
            store.write(transaction)

    def deliver(self, *entries: Entry) -> None:
        """Put events into the embedded store."""

        async def deliver() -> None:
            sink = LocalSink(self.store_path, "local")
            assert all(outcome.settled for outcome in await sink.deliver(list(entries)))
            await sink.close()

        asyncio.run(deliver())

    def ask_spool(self, statement: str) -> list[tuple[Any, ...]]:
        """Query the spool."""
        with contextlib.closing(connect_beside(self.spool_path)) as connection:
            return connection.execute(statement).fetchall()

    def ask_store(self, statement: str) -> list[tuple[Any, ...]]:
        """Query the embedded store."""
        with contextlib.closing(sqlite3.connect(self.store_path)) as connection:
            return connection.execute(statement).fetchall()


def make_entry(
    log_id: str, received_at: datetime = NOON, page: str = "/home", label: str | None = None, param: bytes = b"{}"
) -> Entry:
    info = EventInfo(page=page, event="click", label=label, param=Raw(param))
    return encode_entry(Address(INDEX, log_id), Document(received_at, received_at, log_id, "user", info))


def make_letter(
    log_id: str,
    died_at_ms: int = 1_000,
    error_type: str = "mapper_parsing_exception",
    history: History = History(1, (5_000,)),  # noqa: B008 - immutable
) -> DeadLetter:
    return DeadLetter(make_entry(log_id), error_type, f"because of {HOSTILE}", history, died_at_ms)


def make_document(entry: Entry) -> Any:
    return json.loads(entry.splitlines()[1])
