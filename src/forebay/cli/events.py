"""`forebay events`: events that have reached the sink."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
import typer
from msgspec import Raw

from forebay.cli.options import AsJson, Limit
from forebay.cli.output import print_json, print_table, read_columns, say
from forebay.document import Document, EventInfo
from forebay.settings import load_settings
from forebay.sinks.port import Query, Sink
from forebay.sinks.selection import make_sink

app = typer.Typer(help="Read events back from OpenSearch or the embedded store.")

Documents = Sequence[Raw]
Conditions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FIELD=VALUE",
        show_default=False,
        help="Only events with this value, such as page=/home or param.key1=value1.",
    ),
]

COLUMNS = ("received_at", "page", "event", "label", "user_id", "log_id")
FIELDS = frozenset(field.encode_name for kind in (Document, EventInfo) for field in msgspec.structs.fields(kind))

POLL_S = 1.0
POLL_EVENTS_MAX = 1_000
LATE_MAX = timedelta(minutes=5)
"""`--follow` shows an event that reaches the sink this long after its receipt, and none that is later."""


class Screen:
    """Prints documents as they come: JSON lines, or one table that grows."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._needs_head = True

    def show(self, documents: Documents) -> None:
        """Print more documents."""
        if self._as_json:
            for document in documents:
                print_json(document)
        elif documents:
            print_table(COLUMNS, map(_row, documents), head=self._needs_head)
            self._needs_head = False

    def end(self) -> None:
        """Tell a person if there was nothing to print; programs see it."""
        if self._needs_head and not self._as_json:
            say("no events", err=True)


@app.command()
def tail(
    *,
    limit: Limit = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the newest events, newest last."""
    screen = Screen(as_json=as_json)
    asyncio.run(_tail(limit, screen, follow=follow))
    screen.end()


@app.command()
def search(conditions: Conditions = None, *, limit: Limit = 10, as_json: AsJson = False) -> None:
    """Show the events that meet all conditions, newest first."""
    query = Query(_parse(conditions or []), limit=limit)
    screen = Screen(as_json=as_json)
    screen.show(asyncio.run(_search(query)))
    screen.end()


@app.command()
def count(conditions: Conditions = None, *, as_json: AsJson = False) -> None:
    """Count the events that meet all conditions."""
    events = asyncio.run(_count(Query(_parse(conditions or []))))
    if as_json:
        print_json({"count": events})
    else:
        say(events)


async def _tail(limit: int, screen: Screen, *, follow: bool) -> None:
    async with _open_sink() as sink:
        # Events that were there before and not shown must not pass for new ones.
        seen = await sink.search(Query({}, limit=max(limit, POLL_EVENTS_MAX) if follow else limit))
        screen.show(seen[:limit][::-1])
        while follow:
            await asyncio.sleep(POLL_S)
            found = await sink.search(Query({}, _find_start(seen), POLL_EVENTS_MAX))
            new = _select_new(found, seen)
            screen.show(new[::-1])
            if len(new) == POLL_EVENTS_MAX:
                say(f"forebay: {POLL_EVENTS_MAX} events or more came at once; not all are shown", err=True)
            seen = found


def _find_start(seen: Documents) -> str | None:
    """Return the earliest time of receipt of new events: they do not arrive in the order of their receipt."""
    newest = read_columns(seen[0]).get("received_at") if seen else None
    return None if newest is None else (datetime.fromisoformat(newest) - LATE_MAX).isoformat()


def _select_new(found: Documents, seen: Documents) -> Documents:
    seen_ids = set(map(_identify, seen))
    return [document for document in found if _identify(document) not in seen_ids]


def _identify(document: Raw) -> str | bytes:
    """Return an event's `log_id`; a document of a form of its own has none, and is told by all of it."""
    return read_columns(document).get("log_id") or bytes(document)


async def _search(query: Query) -> Documents:
    async with _open_sink() as sink:
        return await sink.search(query)


async def _count(query: Query) -> int:
    async with _open_sink() as sink:
        return await sink.count(query)


@contextlib.asynccontextmanager
async def _open_sink() -> AsyncIterator[Sink]:
    sink = make_sink(load_settings())
    try:
        yield sink
    finally:
        await sink.close()


def _parse(conditions: list[str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for condition in conditions:
        field, equals, value = condition.partition("=")
        if not equals:
            raise typer.BadParameter(f"{condition!r} is not of the form FIELD=VALUE")
        if field in wanted:
            raise typer.BadParameter(f"{field} is given twice")
        if field.partition(".")[0] not in FIELDS:
            nearest = difflib.get_close_matches(field, FIELDS, n=1)
            meant = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(sorted(FIELDS))}"
            raise typer.BadParameter(f"no event has a field {field!r}; {meant}")
        wanted[field] = value
    return wanted


def _row(document: Raw) -> list[object]:
    shown = read_columns(document)
    return [shown.get(column) for column in COLUMNS]
