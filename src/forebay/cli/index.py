"""`forebay index`: the monthly indices, or the months of the embedded store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer

from forebay.byte_size import format_bytes
from forebay.cli.options import AsJson, Yes
from forebay.cli.output import confirm, print_json, print_table, say
from forebay.settings import Settings, load_settings
from forebay.sinks.months import StoredMonth, choose_old, describe_late_events, months_before
from forebay.sinks.port import Sink
from forebay.sinks.selection import make_sink

app = typer.Typer(help="Prepare OpenSearch's indices, and delete old ones.")

T = TypeVar("T")
COLUMNS = ("index", "documents", "bytes")
AGE_FORM = "a whole number with m for months or d for days, such as 6m or 400d"


def parse_before(text: str) -> datetime:
    """Return the time that lies this many months or days back.

    Raises:
        typer.BadParameter: it is not a whole number with a unit, or it lies too far back.
    """
    now = datetime.now(UTC)
    match = re.fullmatch(r"([0-9]{1,5})([md])", text.strip())
    try:
        if match and match[2] == "m":
            return months_before(now, int(match[1]))
        if match:
            return now - timedelta(days=int(match[1]))
    except OverflowError:
        pass
    raise typer.BadParameter(f"{text!r} is not {AGE_FORM}")


@app.command("init")
def init(
    *,
    ubi: Annotated[bool, typer.Option("--ubi", help="Also those of ubi_events and ubi_queries.")] = False,
) -> None:
    """Put the index template into OpenSearch; every start does so, too.

    Those of ubi_events and ubi_queries are put by the server before the first of their events.
    """
    for line in asyncio.run(_with_sink(load_settings(), lambda sink: sink.prepare(with_ubi=ubi))).splitlines():
        say(line)


@app.command()
def prune(
    *,
    older_than: Annotated[
        datetime,
        typer.Option(
            "--older-than",
            parser=parse_before,
            metavar="6m|400d",
            help="Only months that ended longer ago than this many months or days.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the months, and delete nothing.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete old months for good: whole indices of this environment.

    The current and the previous month always stay. A late event of a deleted month opens its index again, back to
    FOREBAY_OLDEST_MONTH.
    """
    settings = load_settings()
    old = asyncio.run(_with_sink(settings, lambda sink: _find_old(sink, settings, older_than)))
    _show(old, as_json=as_json)
    if late := describe_late_events(old, settings.server_environment, settings.oldest_month):
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
