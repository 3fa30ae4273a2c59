"""`forebay pending`: events that are not settled yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from forebay.byte_size import format_bytes
from forebay.cli.options import All, AsJson, Index, Limit, LogIds, ReceivedBefore, Refused, Yes, choose_pending
from forebay.cli.output import (
    confirm,
    format_time,
    print_json,
    print_table,
    read_address,
    read_columns,
    read_document,
    say,
)
from forebay.errors import GroupDamaged, SpoolError
from forebay.settings import load_settings
from forebay.spool.beside.all_spools import AllSpools
from forebay.spool.beside.inspection import PendingEvent, Summary
from forebay.spool.beside.requests import Request

app = typer.Typer(help="Show, retry or bury pending events: those that wait for delivery.")

COLUMNS = ("received_at", "attempts", "refused_status", "log_id", "page", "event", "index")


@app.command("list")
def list_pending(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the events in the spool, oldest first."""
    spools = AllSpools(load_settings().database_url)
    events = _describe(spools.list_pending(limit))
    if as_json:
        for event in events:
            print_json(event)
        return
    rows = [_row(event) for event in events]
    summary = spools.summarize()
    if rows:
        print_table(COLUMNS, rows)
    say(_sum_up(summary))


@app.command()
def retry() -> None:
    """Ask the server to deliver pending events now."""
    AllSpools(load_settings().database_url).ask(Request.RETRY)
    say("asked the server, which begins within a second, or when it starts")


@app.command()
def bury(
    log_ids: LogIds = None,
    *,
    index: Index = None,
    refused: Refused = False,
    older_than: ReceivedBefore = None,
    everything: All = False,
    yes: Yes = False,
) -> None:
    """Turn pending events into dead letters, which are delivered no more."""
    choice = choose_pending(log_ids, index, older_than, refused=refused, everything=everything)
    spools = AllSpools(load_settings().database_url)
    meant = spools.find_meant(choice)
    for log_id in sorted(choice.log_ids - meant.log_ids):
        raise SpoolError(f"no pending event that meets all conditions has the log_id {log_id}")
    events = meant.by_index.total()
    if not events:
        say("no pending event meets all conditions; the server was not asked")
        return
    print_table(("index", "events"), sorted(meant.by_index.items()))
    if not yes:
        confirm(f"Make dead letters of {events} pending events, {format_bytes(meant.entry_bytes)}?")
    spools.ask(choice)
    say(f"asked the server for {events} events; it begins within a second, or when it starts")


def _describe(found: Iterator[PendingEvent | GroupDamaged]) -> Iterator[dict[str, Any]]:
    for event in found:
        if isinstance(event, GroupDamaged):
            say(f"forebay: {event}", err=True)
            continue
        address = read_address(event.entry)
        yield {
            "log_id": address and address.log_id,
            "index": address and address.index,
            "attempts": event.history.attempts,
            "refused_status": event.history.refused_status or None,
            "received_at": format_time(event.received_at_ms),
            "document": read_document(event.entry),
        }


def _row(event: dict[str, Any]) -> list[object]:
    shown = read_columns(event["document"]) | event
    return [shown.get(column) for column in COLUMNS]


def _sum_up(summary: Summary) -> str:
    totals = summary.totals
    oldest = "" if summary.oldest_at_ms is None else f", the oldest since {format_time(summary.oldest_at_ms)}"
    return (
        f"{totals.events} pending events in {totals.groups} groups, {totals.stored_bytes} bytes{oldest}; "
        f"{totals.dead_letters} dead letters"
    )
