"""`forebay serve`: the server."""

from __future__ import annotations

import typer

from forebay.settings import load_settings


def serve() -> None:
    """Take events until a signal ends it."""
    settings = load_settings()
    from forebay import server  # noqa: PLC0415 - no other command needs it

    raise typer.Exit(server.run(settings))
