"""How results look: JSON lines for programs, tables for people.

Whatever a command prints goes through here, so that no terminal obeys it, every encoding of the output can take it, and
an output that cannot be written is said on one line.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TextIO

import typer

from forebay.errors import ForebayError
from forebay.jsontext import escape_unsafe, write_indented, write_line

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Limit = Annotated[int, typer.Option("-n", "--limit", min=0, max=10_000, help="How many at the most.")]

PIPE_COLUMNS = 10_000
"""Width of a table that no terminal shows: nothing is folded."""

UUID_CHARS = 36

_ESCAPE = "forebay_escape"


class OutputFailed(ForebayError):
    """The output cannot be written; whoever is behind a closed pipe knows it (`BrokenPipeError`)."""


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def say(text: object, *, err: bool = False) -> None:
    """Print a line, by default on standard output."""
    stream = sys.stderr if err else sys.stdout
    with _writing(stream):
        stream.write(f"{_fit(str(text), stream)}\n")
        stream.flush()


def write_raw(data: bytes) -> None:
    """Print the very bytes, and no more."""
    with _writing(sys.stdout):
        typer.echo(data, nl=False)


def confirm(question: str) -> None:
    """Ask a person, and go on only with a yes (`typer.Abort`)."""
    with _writing(sys.stderr):
        typer.confirm(_fit(question, sys.stderr), abort=True, err=True)


def print_json(value: Any) -> None:
    """Print a value on one line."""
    say(write_line(value))


def print_indented(value: Any) -> None:
    """Print a value for a person to read."""
    for line in write_indented(value):
        say(line)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, head: bool = True) -> None:
    """Print a table; a cell that is None stays empty."""
    # Only people need it: not programs that ask for JSON, and not the server.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # As text, so that no part of an event is taken for rich's markup.
    cells = [[Text("" if cell is None else _fit(str(cell), sys.stdout)) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, show_header=head, header_style="bold")
    for number, column in enumerate(columns):
        # What is copied into the next command stays in one piece, unless somebody's own log_id is long.
        whole = column == "log_id" and all(len(row[number]) <= UUID_CHARS for row in cells)
        table.add_column(column, overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*row)
    with _writing(sys.stdout):
        Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def discard(stream: TextIO) -> None:
    """Let what cannot be written go nowhere: Python would write it once more when it ends, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
    """Return text as a stream can take it, also where its encoding has not all of the letters."""
    encoding = stream.encoding or "utf-8"
    return escape_unsafe(text).encode(encoding, _ESCAPE).decode(encoding)


def _escape_missing(error: UnicodeError) -> tuple[str, int]:
    """Put letters that an encoding has not as JSON does; within JSON, they are the same."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPE, _escape_missing)


def format_time(time_ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
