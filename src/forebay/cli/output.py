"""How results look: JSON lines for programs, tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from forebay.jsontext import escape_unsafe, write_indented, write_line

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Limit = Annotated[int, typer.Option("-n", "--limit", min=0, max=10_000, help="How many at the most.")]

PIPE_COLUMNS = 10_000
"""Width of a table that no terminal shows: nothing is folded."""

UUID_CHARS = 36
KIB = 1024


def print_json(value: Any) -> None:
    """Print a value on one line."""
    typer.echo(write_line(value))


def print_indented(value: Any) -> None:
    """Print a value for a person to read."""
    for line in write_indented(value):
        typer.echo(line)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, head: bool = True) -> None:
    """Print a table; a cell that is None stays empty."""
    # Only people need it: not programs that ask for JSON, and not the server.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # As text, so that no part of an event is taken for rich's markup.
    cells = [[Text("" if cell is None else escape_unsafe(str(cell))) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, show_header=head, header_style="bold")
    for number, column in enumerate(columns):
        # What is copied into the next command stays in one piece, unless somebody's own log_id is long.
        whole = column == "log_id" and all(len(row[number]) <= UUID_CHARS for row in cells)
        table.add_column(column, overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def format_time(time_ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_bytes(count: int) -> str:
    """Return a number of bytes as a person reads it, to three digits."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < KIB:
            break
        value, unit = value / KIB, larger
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}" if value < 1_000 else f"{value:.0f} {unit}"  # noqa: PLR2004
