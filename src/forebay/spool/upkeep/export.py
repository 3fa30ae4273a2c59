"""Exports dead letters before they are deleted: a file a day, a line of JSON for each letter.

If a process ends between writing and deleting, some letters are written once more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from msgspec import Raw

from forebay.errors import ExportFailed
from forebay.jsontext import read_json, write_line
from forebay.model import Entry, entry_document
from forebay.spool.files import sync_folder
from forebay.spool.upkeep.expiry import ExpiredLetter

_TAIL_BYTES = 64 * 1024


def append(folder: Path, name: str, letters: Sequence[ExpiredLetter], now: datetime) -> None:
    """Add letters to the file of the day, and sync it. `name` tells the spools of several workers apart.

    Raises:
        ExportFailed: not all of them are on disk; those that were written are taken back as far as possible.
    """
    path = folder / f"{name}.dead-{now.astimezone(UTC):%Y-%m-%d}.ndjson"
    lines = "".join(f"{write_line(describe(letter))}\n" for letter in letters)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Without a buffer: after a failure it would be written once more when the file is closed.
        with path.open("a+b", buffering=0) as file:
            _drop_open_line(file)
            _append(file, lines.encode())
        sync_folder(folder)
    except OSError as error:
        raise ExportFailed(f"FOREBAY_DEAD_EXPORT_DIR: {path} cannot be written: {error.strerror or error}") from error


def describe(letter: ExpiredLetter) -> dict[str, Any]:
    """Return all facts about a letter; a document that is no JSON becomes text."""
    return {
        "log_id": letter.log_id,
        "index": letter.index_name,
        "error_type": letter.error_type,
        "reason": letter.reason,
        "attempts": letter.history.attempts,
        "attempted_at": [_time(at_ms) for at_ms in letter.history.attempted_at_ms],
        "died_at": _time(letter.died_at_ms),
        "document": _document(letter.entry),
    }


def _document(entry: Entry) -> Raw | str:
    try:
        return read_json(entry_document(entry))
    except (ValueError, RecursionError):
        return entry.decode("utf-8", "backslashreplace")


def _time(at_ms: int) -> str | int:
    try:
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return at_ms
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _drop_open_line(file: FileIO) -> None:
    """Cut off a line that a crash left unfinished; its letter is still in the spool, and is written again."""
    end = file.seek(0, os.SEEK_END)
    start = end
    while start:
        start = max(0, start - _TAIL_BYTES)
        file.seek(start)
        newline = file.read(_TAIL_BYTES).rfind(b"\n")
        if newline >= 0:
            start += newline + 1
            break
    if start < end:
        file.truncate(start)


def _append(file: FileIO, lines: bytes) -> None:
    size = file.seek(0, os.SEEK_END)
    try:
        while lines:
            lines = lines[file.write(lines) :]
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), size)
        raise
