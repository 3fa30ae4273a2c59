"""Prints results: JSON lines for programs, tables for people.

Everything that a command prints goes through here. Characters that a terminal takes for a command, or that the
output's encoding lacks, are escaped. An output that cannot be written is a one-line error.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
from msgspec import Raw

from forebay.errors import ForebayError
from forebay.jsontext import escape_unsafe, read_json, write_indented, write_line
from forebay.model import Address, Entry, entry_address, entry_document
from forebay.own_indices import RECEIPT

PIPE_COLUMNS = 10_000
"""Width of a table that is not for a terminal: no line is folded."""

UUID_CHARS = 36

_ESCAPE = "forebay_escape"

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str | None).decode


class OutputFailed(ForebayError):
    """The output cannot be written, but for a closed pipe (`BrokenPipeError`), whose reader knows it."""


def say(text: object, *, err: bool = False) -> None:
    """Print a line, by default on standard output."""
    stream = sys.stderr if err else sys.stdout
    with _writing(stream):
        stream.write(f"{_fit(str(text), stream)}\n")
        stream.flush()


def write_raw(data: bytes) -> None:
    """Print exactly these bytes."""
    with _writing(sys.stdout):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def confirm(question: str) -> None:
    """Ask a person to confirm.

    Raises:
        typer.Abort: the answer is not yes.
    """
    import typer  # noqa: PLC0415 - the server, which prints its errors by this module, does without it

    with _writing(sys.stderr):
        typer.confirm(_fit(question, sys.stderr), abort=True, err=True)


def print_json(value: Any) -> None:
    """Print a value on one line."""
    say(write_line(value))


def print_indented(value: Any) -> None:
    """Print a value over several lines."""
    for line in write_indented(value):
        say(line)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, head: bool = True) -> None:
    """Print a table; a cell that is None stays empty."""
    # Programs that ask for JSON, and the server, do without rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # As `Text`, no part of an event is taken for rich's markup.
    cells = [[Text("" if cell is None else _fit(str(cell), sys.stdout)) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, show_header=head, header_style="bold")
    for number, column in enumerate(columns):
        # A log_id stays on one line, to be copied into the next command, unless a client's own one is long.
        whole = column == "log_id" and all(len(row[number]) <= UUID_CHARS for row in cells)
        table.add_column(column, overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*row)
    with _writing(sys.stdout):
        Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def discard(stream: TextIO) -> None:
    """Send a stream's unwritten rest nowhere: Python would try to write it again at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def format_time(time_ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_address(entry: Entry) -> Address | None:
    """Return an entry's index and `_id`, or None if it is damaged."""
    try:
        return entry_address(entry)
    except ValueError:
        return None


def read_document(entry: Entry) -> Raw | str:
    """Return an entry's document; if it is damaged, the whole entry as text."""
    try:
        return read_json(entry_document(entry))
    except (ValueError, RecursionError):
        return entry.decode("utf-8", "replace")


def read_columns(document: Raw | str) -> dict[str, str | None]:
    """Return the fields of a document and of our objects in it: texts as they are, other values as JSON."""
    fields = _read_fields(document)
    for name in ("event_info", RECEIPT):
        fields |= _read_fields(fields.get(name, Raw()))
    return {name: _read_text(value) for name, value in fields.items()}


def _read_fields(document: Raw | str) -> dict[str, Raw]:
    try:
        return _decode_fields(document)
    except (ValueError, RecursionError):
        return {}


def _read_text(value: Raw) -> str | None:
    try:
        text: str | None = _decode_text(value)
    except (ValueError, RecursionError):
        return bytes(value).decode("utf-8", "replace")
    return text


@contextlib.contextmanager
def _writing(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(stream)
        raise OutputFailed(f"the output cannot be written: {error.strerror or error}") from error


def _fit(text: str, stream: TextIO) -> str:
    """Return text with every character escaped that the stream's encoding lacks."""
    encoding = stream.encoding or "utf-8"
    return escape_unsafe(text).encode(encoding, _ESCAPE).decode(encoding)


def _escape_missing(error: UnicodeError) -> tuple[str, int]:
    """Write characters that an encoding lacks as JSON does, so that JSON keeps its meaning."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPE, _escape_missing)
