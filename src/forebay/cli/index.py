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
from forebay.sinks.months import MonthKeeper, StoredMonth, choose_old, tell_of_late
from forebay.sinks.selection import make_month_keeper

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
    settings = load_settings()
    from forebay.sinks.opensearch import put_template  # noqa: PLC0415 - aiohttp takes 25 MiB

    say(asyncio.run(put_template(settings)))


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
    old = asyncio.run(_with_keeper(settings, lambda keeper: _find_old(keeper, settings, older_than)))
    _show(old, as_json=as_json)
    if late := tell_of_late(old, settings.server_environment, settings.oldest_month):
        say(late, err=True)
    if not old or dry_run:
        return
    if not yes:
        confirm(f"Delete {_sum_up(old)} for good?")
    asyncio.run(_with_keeper(settings, lambda keeper: _delete(keeper, old)))
    say(f"deleted: {_sum_up(old)}", err=as_json)


async def _with_keeper(settings: Settings, work: Callable[[MonthKeeper], Awaitable[T]]) -> T:
    keeper = make_month_keeper(settings)
    try:
        return await work(keeper)
    finally:
        await keeper.close()


async def _find_old(keeper: MonthKeeper, settings: Settings, before: datetime) -> list[StoredMonth]:
    return choose_old(await keeper.list_months(), settings.server_environment, before, datetime.now(UTC))


async def _delete(keeper: MonthKeeper, months: list[StoredMonth]) -> None:
    for month in months:
        await keeper.delete_month(month.name)


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
