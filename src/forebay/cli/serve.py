"""`forebay serve`: the server."""

from __future__ import annotations

import typer

from forebay.settings import load_settings


def serve() -> None:
    """Run the server until SIGTERM or Ctrl-C."""
    settings = load_settings()
    # Imported here, since no other command needs them.
    if settings.workers > 1:
        from forebay.workers import launch  # noqa: PLC0415

        launch.run(settings)
    from forebay import server  # noqa: PLC0415

    raise typer.Exit(server.run(settings))
