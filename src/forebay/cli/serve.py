"""`forebay serve`: the server."""

from __future__ import annotations

import typer

from forebay.settings import load_settings


def serve() -> None:
    """Take events until a signal ends it."""
    settings = load_settings()
    # No other command needs either.
    if settings.workers > 1:
        from forebay.workers import launch  # noqa: PLC0415

        launch.run(settings)
    from forebay import server  # noqa: PLC0415

    raise typer.Exit(server.run(settings))
