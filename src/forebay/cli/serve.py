"""`forebay serve`: the server."""

from __future__ import annotations

from forebay.settings import Settings, load_settings


def serve() -> int:
    """Run the server until SIGTERM or Ctrl-C."""
    settings = load_settings()
    # Imported here, since no other command needs them.
    from forebay import server  # noqa: PLC0415
    from forebay.workers import supervisor  # noqa: PLC0415

    return supervisor.run(settings) if _needs_supervisor(settings) else server.run(settings)


def check() -> None:
    """Find out whether settings or files would refuse a start (`deploy.sh`), beside a server that has the same spool.

    Raises:
        SettingsError: they would.
    """
    settings = load_settings()
    from forebay import server  # noqa: PLC0415 - as above
    from forebay.workers import supervisor  # noqa: PLC0415

    if _needs_supervisor(settings):
        supervisor.check(settings)
    else:
        server.check(settings)


def _needs_supervisor(settings: Settings) -> bool:
    from forebay.workers import orphans  # noqa: PLC0415 - as above

    # One process owns one spool, so an orphan needs a second one.
    return settings.workers > 1 or bool(orphans.find_orphans(settings.database_url, settings.workers))
