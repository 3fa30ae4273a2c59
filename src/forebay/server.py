"""The server: puts the parts together. Start-up and shutdown read here from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import structlog
import uvicorn
import uvloop

from forebay import __version__
from forebay.admin.app import AdminApp, Collect
from forebay.admin.peers import Peers
from forebay.admin.snapshot import Snapshot, measure_process
from forebay.denials.denials import Denials
from forebay.description import describe_server
from forebay.errors import SettingsError
from forebay.http_server import HttpServer
from forebay.intake.answers import ServerLines
from forebay.intake.connection import PING, Connection
from forebay.intake.foreign import document_makers
from forebay.intake.formats.registry import list_addresses
from forebay.intake.guard import Guard
from forebay.intake.intake import Intake
from forebay.intake.limits import ConnectionLimits, ConnectionTimeouts, RequestLimits
from forebay.intake.proxied import ProxiedConnection
from forebay.pipeline.pipeline import Pipeline
from forebay.process import end_within, fit_connections, give_back_memory, keep_freed_memory
from forebay.secret import find_secret, resolve_secret
from forebay.settings import Settings, unknown_variables
from forebay.sinks.port import Sink
from forebay.sinks.selection import make_sink
from forebay.spool.files import spool_path
from forebay.spool.spool import Spool
from forebay.spool.upkeep import retention
from forebay.telemetry.counters import Counters
from forebay.telemetry.logs import configure_logs
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_own_token
from forebay.tokens.selection import make_verifier
from forebay.tokens.verifier import TokenVerifier

if TYPE_CHECKING:
    from forebay.tokens.jwks import PublishedKeys

log = structlog.get_logger("forebay.server")

BACKLOG = 2048
REQUESTS_IN_HAND_S = 5
"""The time that the shutdown gives requests in hand; an answer takes one commit."""

CLOSING_S = 4
"""The time for the rest of the shutdown, beside the delivery; `deploy.sh` gives ten seconds for both."""

CURL_TOKEN_S = 30 * 86_400

Started = Callable[[HttpServer, str], None]
"""Called once connections are taken, with the server, to end it later, and the sink's location."""


def run(settings: Settings) -> int:
    """Serve in this one process until a signal ends it; return the exit code.

    Raises:
        SettingsError: a setting does not allow it: no secret can be kept, the port is taken, the
            denial list cannot be read.
        SpoolUnusable: the database cannot be opened, or another process owns it.
    """
    configure_logs(settings.log_format, settings.log_level)
    secret = resolve_secret(settings)
    warn(settings, secret)
    with contextlib.closing(listen(settings)) as listener:
        return work(
            settings,
            secret,
            listener,
            Peers(),
            lambda _, sink_location: announce(settings, secret, listener, sink_location),
        )


def check(settings: Settings) -> None:
    """Make everything that settings, files and packages may refuse to a start; nothing is written, and no sink asked.

    Raises:
        SettingsError: a start would be refused.
    """

    async def make() -> None:
        # A secret that is not there yet is made at the start.
        await make_foundation(settings, find_secret(settings) or "", Counters()).sink.close()

    asyncio.run(make())


def work(settings: Settings, secret: str, listener: socket.socket, peers: Peers, started: Started) -> int:
    """Serve as the only process, or as one of several, until told to end; return the exit code.

    Raises:
        SettingsError: as `make_foundation`.
        SpoolUnusable: the database cannot be opened, or another process owns it.
    """
    with (
        contextlib.closing(Spool(spool_path(settings.database_url, peers.number))) as spool,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(serve(settings, secret, listener, spool, peers, started))


async def serve(
    settings: Settings, secret: str, listener: socket.socket, spool: Spool, peers: Peers, started: Started
) -> int:
    """Take events over HTTP and deliver them until told to end; return the exit code.

    Raises:
        SettingsError: as `make_foundation`.
    """
    keep_freed_memory()
    counters = Counters()
    denials, verifier, keys, sink = make_foundation(settings, secret, counters)
    deliverer = Deliverer(settings, spool, sink, counters)

    def observe() -> Snapshot:
        return deliverer.observe(peers.number, stopping=server.should_exit)

    http_config = configure_http(settings, verifier, denials, deliverer, lambda: peers.ask(observe()))
    server = HttpServer(http_config, lambda: started(server, deliverer.sink.location))
    # A server that takes events and delivers none would look well from outside.
    fetching = (fetched.run() for fetched in keys)
    deliverer.start(server.end, server.sweep(), peers.answer(observe), denials.watch(), *fetching)
    # Objects that live from here to the end are not worth a look at every collection. Nor are events: they hold no
    # cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        await server.serve(sockets=[listener])
    finally:
        # No request is in hand any more, so no event is admitted after this last delivery.
        exit_code = await deliverer.stop()
    return exit_code


class Foundation(NamedTuple):
    """The parts of a server that files and packages may refuse to it; see `make_verifier` for `keys`."""

    denials: Denials
    verifier: TokenVerifier
    keys: Sequence[PublishedKeys]
    sink: Sink


def make_foundation(settings: Settings, secret: str, counters: Counters) -> Foundation:
    """Return the parts that may refuse a start, which makes them first; to be called in the loop that uses them.

    Raises:
        SettingsError: the denial list, a key of a provider or a certificate cannot be used, or a package is missing.
    """
    denials = Denials(settings.denials_path, counters)
    verifier, keys = make_verifier(settings, secret, counters, denials)
    # Last, as the sink is to be closed.
    return Foundation(denials, verifier, keys, make_sink(settings))


class Deliverer:
    """Delivers the events of one spool to the sink, and looks after the spool, from `start` to `stop`.

    Attributes:
        counters: the figures of this delivery, and of the intake before it.
        sink: the destination of the events.
        pipeline: everything between intake and sink.
    """

    def __init__(self, settings: Settings, spool: Spool, sink: Sink, counters: Counters) -> None:
        self._settings = settings
        self._spool = spool
        self._background: list[asyncio.Task[None]] = []
        self.counters = counters
        self.sink = sink
        spool.start(asyncio.get_running_loop(), self.sink.repair)
        self.pipeline = Pipeline(spool, self.sink, settings, self.counters)

    def start(self, on_failed: Callable[[], None], *others: Coroutine[None, None, None]) -> None:
        """Start everything; `others` run as long.

        `on_failed` is called if it cannot go on, and then the process is to end: the next start rescues a damaged
        spool, and finds out whether a commit in doubt counts.
        """
        self._spool.guard(on_lost=on_failed)
        self._pipeline_task = asyncio.create_task(self.pipeline.run())
        self._pipeline_task.add_done_callback(lambda _: on_failed())
        tasks = (
            self.sink.open(),
            retention.run(self._spool, self._settings.dead_retention_days, self._settings.dead_export_dir),
            give_back_memory(),
            *others,
        )
        self._background = [asyncio.create_task(task) for task in tasks]
        for task in self._background:
            task.add_done_callback(_tell_failure)

    def observe(self, number: int, *, stopping: bool) -> Snapshot:
        """Return the state of this process."""
        is_stopping = stopping or self.pipeline.admitter.closed
        return Snapshot(number, self.counters, self.pipeline.state, measure_process(), is_stopping)

    async def stop(self) -> int:
        """End everything, in the opposite order; return the process's exit code."""
        end_within(self._settings.shutdown_timeout_s + CLOSING_S)
        await self.pipeline.stop(self._pipeline_task, self._settings.shutdown_timeout_s)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.sink.close()
        # Within the loop, which still takes the spool's last answers.
        self._spool.close()
        error = None if self._pipeline_task.cancelled() else self._pipeline_task.exception()
        if error is not None:
            log.error("pipeline_failed", exc_info=error)
        return int(error is not None or bool(self._spool.lost))


def _tell_failure(task: asyncio.Task[None]) -> None:
    """Log that a task in the background has ended by a fault of our own: events go on without it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task_failed", consequence="events go on without it; restart this server", exc_info=error)


def listen(settings: Settings) -> socket.socket:
    """Return a socket that is bound to the address of the settings.

    Raises:
        SettingsError: the address cannot be had.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.server_port))
    except (OSError, TypeError) as error:
        listener.close()
        # Python calls a name that cannot be written in ASCII a wrong type.
        is_name = isinstance(error, (socket.gaierror, TypeError))
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"{'FOREBAY_HOST' if is_name else 'SERVER_PORT'}: cannot listen on {settings.host} "
            f"port {settings.server_port}: {reason}"
        ) from error
    return listener


def configure_http(
    settings: Settings, verifier: TokenVerifier, denials: Denials, deliverer: Deliverer, collect: Collect
) -> uvicorn.Config:
    """Return the configuration of the HTTP server, with the class that is called for each connection."""
    counters = deliverer.counters
    makers = document_makers(
        settings.server_environment,
        settings.oldest_month_start,
        counters,
        require_log_id=settings.require_log_id,
        drops_repeated=settings.open_search_auto_id,
        denials=denials,
    )
    limits = RequestLimits(settings.header_bytes_max, settings.body_bytes_max, settings.batch_events_max)
    guard = Guard(verifier, denials, settings, limits, counters)
    addresses = list_addresses(settings.paths_extra)
    intake = Intake(addresses, guard, makers, deliverer.pipeline.admitter, limits, counters)
    timeouts = ConnectionTimeouts(settings.request_timeout_s, settings.keep_alive_s)
    connection_limits = ConnectionLimits(
        fit_connections(settings.connections_max), settings.in_hand_bytes_max, counters
    )
    methods = {"/ping": tuple(method.decode() for method in PING)} | {path.decode(): ("POST",) for path in addresses}
    describe_interface = partial(describe_server, addresses, metrics_open=settings.metrics_open)
    connection = ProxiedConnection if settings.proxy_protocol else Connection
    return uvicorn.Config(
        AdminApp(verifier, collect, methods, describe_interface, metrics_open=settings.metrics_open).build(),
        # uvicorn asks for a class, and calls it for each connection.
        http=cast("type[Connection]", partial(connection, intake, timeouts, connection_limits, ServerLines())),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=REQUESTS_IN_HAND_S,
    )


def warn(settings: Settings, secret: str) -> None:
    """Warn of settings that are allowed and hardly meant."""
    for name, nearest in unknown_variables():
        log.warning("unknown_setting", name=name, meant=nearest)
    characters_min = settings.jwt_algorithm.secret_chars_min
    old = [secret.get_secret_value() for secret in settings.jwt_secrets_old]
    for name, secrets in (("JWT_SECRET", [secret]), ("FOREBAY_JWT_SECRETS_OLD", old)):
        if any(len(text) < characters_min for text in secrets):
            log.warning("short_secret", name=name, characters_min=characters_min)


def announce(settings: Settings, secret: str, listener: socket.socket, sink_location: str) -> None:
    """Announce that events are taken: in the log, and for a newcomer with a curl line that works."""
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    fields: dict[str, str | int] = {
        "version": __version__,
        "address": f"http://{host}:{port}",
        "events_go_to": sink_location,
        "spool": str(settings.database_url),
        "ack": settings.ack.value,
    }
    if settings.workers > 1:
        fields["workers"] = settings.workers
    log.info("serving", **fields)
    if settings.jwt_secret is None:
        sys.stdout.write(_curl_line(settings, secret, port))
        sys.stdout.flush()


def _curl_line(settings: Settings, secret: str, port: int) -> str:
    """Return a curl line that sends a first event, with a valid token."""
    token = make_own_token(settings, secret, "newcomer", [Scope.WRITE], CURL_TOKEN_S)
    return (
        "\nNo JWT_SECRET is set, so one was made. Send a first event:\n\n"
        f"curl -X POST http://localhost:{port}/events -H 'Content-Type: application/json' \\\n"
        f"  -H 'Authorization: Bearer {token}' \\\n"
        """  -d '{"page": "/home", "event": "click", "label": "button_click", "param": {"key1": "value1"}}'\n\n"""
        f"and look at it: {sys.argv[0]} events tail\n\n"
    )
