"""`forebay serve`: the server."""

from __future__ import annotations

from forebay.settings import load_settings


def serve() -> int:
    """Run the server until SIGTERM or Ctrl-C."""
    settings = load_settings()
    # Imported here, since no other command needs them.
    from forebay import server  # noqa: PLC0415
    from forebay.workers import orphans, supervisor  # noqa: PLC0415

    # One process owns one spool, so an orphan needs a second one.
    if settings.workers > 1 or orphans.find_orphans(settings.database_url, settings.workers):
        return supervisor.run(settings)
    return server.run(settings)
