"""`forebay serve`: the server."""

from __future__ import annotations

import typer

from forebay.settings import load_settings


def serve() -> None:
    """Take events until a signal ends it."""
    settings = load_settings()
    # No other command needs the server.
    from forebay import server  # noqa: PLC0415
    from forebay.workers import orphans, supervisor  # noqa: PLC0415

    # One process owns one spool, so an orphan needs a second one.
    if settings.workers > 1 or orphans.find_orphans(settings.database_url, settings.workers):
        raise typer.Exit(supervisor.run(settings))
    raise typer.Exit(server.run(settings))
