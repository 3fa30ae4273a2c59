"""One worker that takes events: the whole server, with a spool of its own and its share of the limits."""

from __future__ import annotations

import socket
from pathlib import Path

import structlog

from forebay import server
from forebay.admin.peers import Peers
from forebay.errors import ForebayError, SettingsError
from forebay.http_server import HttpServer
from forebay.settings import DIVIDED, Settings
from forebay.telemetry.logs import configure_logs
from forebay.workers.child import EXIT_FAILED
from forebay.workers.link import Serving, SupervisorLink

log = structlog.get_logger("forebay.worker")

EXIT_WRONG_SETTING = 2
"""The exit code of a command for a wrong setting."""


def run_worker(
    number: int, settings: Settings, secret: str, listener: socket.socket, folder: Path, link: SupervisorLink
) -> int:
    """Serve until told to end, or until the supervisor is gone; return the exit code."""
    configure_logs(settings.log_format, settings.log_level, number)
    peers = Peers(number, settings.workers, folder)

    def started(http_server: HttpServer, sink_location: str) -> None:
        link.serve(Serving(sink_location), peers, on_gone=http_server.end)

    try:
        return server.work(take_share(settings, number), secret, listener, peers, started)
    except ForebayError as error:
        log.error("worker_refused", cause=str(error))  # noqa: TRY400 - the cause says it all
        return EXIT_WRONG_SETTING if isinstance(error, SettingsError) else EXIT_FAILED
    finally:
        if not link.is_supervised:
            peers.leave()


def take_share(settings: Settings, number: int) -> Settings:
    """Return the settings of one worker; those with the lowest numbers get the rest of an uneven division.

    Each has at least one of everything, and can take the largest body that is allowed.
    """
    divided = [name for name, field in Settings.model_fields.items() if DIVIDED in field.metadata]
    shares = {name: _divide(getattr(settings, name), settings.workers, number) for name in divided}
    shares["in_hand_bytes_max"] = max(shares["in_hand_bytes_max"], settings.body_bytes_max)
    return settings.model_copy(update=shares)


def _divide(whole: int, workers: int, number: int) -> int:
    return max(1, whole // workers + (number <= whole % workers))
