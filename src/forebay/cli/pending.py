"""`forebay pending`: events that are not settled yet."""

from __future__ import annotations

import json
from typing import Any

import typer

from forebay.cli.output import AsJson, Limit, format_time, print_json, print_table
from forebay.model import entry_address, entry_document
from forebay.settings import load_settings
from forebay.spool.inspection import PendingEvent, Request, Summary, inspect

app = typer.Typer(help="Look at events that wait for their delivery.")

COLUMNS = ("received_at", "attempts", "log_id", "page", "event", "index")


@app.command("list")
def list_pending(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """Show the events that are in the spool, oldest first."""
    with inspect(load_settings().database_url) as spool:
        events = map(_describe, spool.list_pending(limit))
        if as_json:
            for event in events:
                print_json(event)
            return
        rows = [_row(event) for event in events]
        summary = spool.summarize()
    if rows:
        print_table(COLUMNS, rows)
    typer.echo(_sum_up(summary))


@app.command()
def retry() -> None:
    """Ask the server to deliver them now."""
    with inspect(load_settings().database_url) as spool:
        spool.ask(Request.RETRY)
    typer.echo("asked; the server begins within a second, or when it starts")


def _describe(event: PendingEvent) -> dict[str, Any]:
    address = entry_address(event.entry)
    return {
        "log_id": address.log_id,
        "index": address.index,
        "attempts": event.attempts,
        "received_at": format_time(event.received_at_ms),
        "document": json.loads(entry_document(event.entry)),
    }


def _row(event: dict[str, Any]) -> tuple[object, ...]:
    info = event["document"]["event_info"]
    shown = event | {"page": info["page"], "event": info["event"]}
    return tuple(shown[column] for column in COLUMNS)


def _sum_up(summary: Summary) -> str:
    pending = summary.pending
    oldest = "" if pending.oldest_at_ms is None else f", the oldest since {format_time(pending.oldest_at_ms)}"
    return (
        f"{pending.events} pending events in {pending.groups} groups, {pending.stored_bytes} bytes{oldest}; "
        f"{summary.dead_letters} dead letters"
    )
