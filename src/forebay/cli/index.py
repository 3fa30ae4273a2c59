"""`forebay index`: the monthly indices, or what stands for them in the embedded store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from forebay.byte_size import format_bytes
from forebay.cli.durations import parse_before
from forebay.cli.output import AsJson, confirm, print_json, print_table, say
from forebay.settings import Settings, load_settings
from forebay.sinks.months import StoredMonth, choose_old, tell_of_late
from forebay.sinks.port import Sink
from forebay.sinks.selection import make_sink

app = typer.Typer(help="Prepare OpenSearch's indices, and delete old ones.")

T = TypeVar("T")
COLUMNS = ("index", "documents", "bytes")

OlderThan = Annotated[
    datetime,
    typer.Option(
        "--older-than",
        parser=parse_before,
        metavar="6m|400d",
        help="Months that ended so long ago.",
        show_default=False,
    ),
]


@app.command("init")
def init() -> None:
    """Put the index template in place, as the server does when it starts."""
    say(asyncio.run(_with_sink(load_settings(), lambda sink: sink.prepare())))


@app.command()
def prune(
    *,
    older_than: OlderThan,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the events of old months for good: whole indices of this environment.

    An event of such a month that comes later opens its index again, back to FOREBAY_OLDEST_MONTH.
    """
    settings = load_settings()
    old = asyncio.run(_with_sink(settings, lambda sink: _find_old(sink, settings, older_than)))
    _show(old, as_json=as_json)
    if late := tell_of_late(old, settings.server_environment, settings.oldest_month):
        say(late, err=True)
    if not old or dry_run:
        return
    if not yes:
        confirm(f"Delete {_sum_up(old)} for good?")
    asyncio.run(_with_sink(settings, lambda sink: _delete(sink, old)))
    say(f"deleted: {_sum_up(old)}", err=as_json)


async def _with_sink(settings: Settings, work: Callable[[Sink], Awaitable[T]]) -> T:
    sink = make_sink(settings)
    try:
        return await work(sink)
    finally:
        await sink.close()


async def _find_old(sink: Sink, settings: Settings, before: datetime) -> list[StoredMonth]:
    return choose_old(await sink.list_months(), settings.server_environment, before, datetime.now(UTC))


async def _delete(sink: Sink, months: list[StoredMonth]) -> None:
    for month in months:
        await sink.delete_month(month.name)


def _show(months: list[StoredMonth], *, as_json: bool) -> None:
    if as_json:
        for month in months:
            print_json({"index": month.name, "documents": month.documents, "bytes": month.stored_bytes})
        return
    if months:
        print_table(COLUMNS, [(month.name, month.documents, format_bytes(month.stored_bytes)) for month in months])
    else:
        say("no month is that old; the current one and the one before it always stay")


def _sum_up(months: list[StoredMonth]) -> str:
    documents = sum(month.documents for month in months)
    return f"{len(months)} months with {documents} documents, {format_bytes(sum(m.stored_bytes for m in months))}"
