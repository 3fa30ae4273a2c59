"""The server: puts the parts together. Start-up and shutdown read here from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType

import jwt
import structlog
import uvicorn
import uvloop

from forebay import __version__
from forebay.admin.app import AdminApp
from forebay.admin.health import judge_readiness
from forebay.admin.metrics import Metrics
from forebay.ending import end_within
from forebay.errors import SettingsError
from forebay.intake.crowd import Crowd
from forebay.intake.descriptors import fit_connections
from forebay.intake.documents import DocumentMaker
from forebay.intake.intake import Intake, IntakeLimits
from forebay.intake.protocol import IntakeProtocol
from forebay.intake.refusing import ConnectionLimits
from forebay.intake.targets import METHODS
from forebay.intake.tokens import TokenVerifier
from forebay.pipeline.pipeline import Pipeline
from forebay.secret import resolve_secret
from forebay.settings import SECRET_CHARS_MIN, Settings, unknown_variables
from forebay.sinks.port import Sink
from forebay.sinks.selection import make_sink
from forebay.spool import retention
from forebay.spool.spool import Spool
from forebay.telemetry.counters import Counters
from forebay.telemetry.logs import configure_logs

log = structlog.get_logger("forebay.server")

BACKLOG = 2048
SWEEP_INTERVAL_S = 1.0
REQUESTS_IN_HAND_S = 5
"""How long the shutdown waits for requests in hand; an answer takes one commit."""

CLOSING_S = 4
"""How long the rest of the shutdown may take beside the delivery; `deploy.sh` gives ten seconds for both."""

TRIAL_TOKEN_S = 30 * 86_400


def run(settings: Settings) -> int:
    """Serve until a signal ends it; return the exit code.

    Raises:
        SettingsError: a setting does not allow it: no secret can be kept, the port is taken.
        SpoolUnusable: the database cannot be opened, or another process owns it.
    """
    configure_logs(settings.log_format, settings.log_level)
    secret = resolve_secret(settings)
    _warn(secret)
    listener = listen(settings)
    with (
        contextlib.closing(listener),
        contextlib.closing(Spool(settings.database_url)) as spool,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(serve(settings, secret, listener, spool))


async def serve(settings: Settings, secret: str, listener: socket.socket, spool: Spool) -> int:
    """Start everything, serve, and end everything in the opposite order; return the exit code."""
    counters = Counters()
    spool.start(asyncio.get_running_loop())
    sink = make_sink(settings)
    pipeline = Pipeline(spool, sink, settings, counters)
    server = _make_http_server(settings, secret, pipeline, counters)
    # What can be read of a damaged spool is saved by the next start.
    spool.guard(on_damage=server.end)
    pipeline_task = asyncio.create_task(pipeline.run())
    # A server that takes events and delivers none would look well from outside.
    pipeline_task.add_done_callback(lambda _: server.end())
    background = [
        asyncio.create_task(sink.open()),
        asyncio.create_task(retention.run(spool, settings.dead_retention_days, _export(settings))),
        asyncio.create_task(server.sweep()),
    ]
    # What lives from here to the end is not worth looking through at every collection, nor are events, which hold no
    # cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    _announce(settings, secret, listener, sink)
    try:
        await server.serve(sockets=[listener])
        # No request is in hand any more, so nothing is admitted behind what is delivered and written out now.
    finally:
        end_within(settings.shutdown_timeout_s + CLOSING_S)
        await pipeline.stop(pipeline_task, settings.shutdown_timeout_s)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await sink.close()
        # Within the loop, which the spool's last answers still go to.
        spool.close()
    return _exit_code(pipeline_task) or int(bool(spool.damage))


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


class HttpServer(uvicorn.Server):
    """uvicorn, with our way of ending, and a look at connections whose time is up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let a first signal end the server in order and a second one at once.

        uvicorn raises the signal again when it has ended, which would kill the process before the channel is
        delivered.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; at the second signal, at once: what is not delivered is in the spool."""
        del frame
        if self.should_exit:
            os._exit(128 + sig)
        self.end()

    def end(self) -> None:
        """Take no more connections, finish the requests in hand, and return from `serve`."""
        self.should_exit = True

    async def sweep(self) -> None:
        """Close connections whose time is up, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = loop.time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, IntakeProtocol):
                    connection.expire(now)


def _make_http_server(settings: Settings, secret: str, pipeline: Pipeline, counters: Counters) -> HttpServer:
    verifier = TokenVerifier(secret)
    maker = DocumentMaker(settings.server_environment, require_log_id=settings.require_log_id)
    limits = IntakeLimits(settings.body_bytes_max, settings.batch_events_max)
    intake = Intake(verifier, maker, pipeline.admitter, settings.ack, limits, counters)
    connection_limits = ConnectionLimits(settings.header_bytes_max, settings.request_timeout_s, settings.keep_alive_s)
    crowd = Crowd(fit_connections(settings.connections_max), settings.in_hand_bytes_max, counters)
    app = AdminApp(
        verifier,
        Metrics(counters, lambda: pipeline.state),
        lambda: judge_readiness(pipeline.state, stopping=pipeline.admitter.closed or server.should_exit),
        {target.value: tuple(method.decode() for method in METHODS[target]) for target in METHODS},
        metrics_open=settings.metrics_open,
    ).build()
    server = HttpServer(
        uvicorn.Config(
            app,
            http=IntakeProtocol.bound_to(intake, connection_limits, crowd),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=REQUESTS_IN_HAND_S,
        )
    )
    return server


def _export(settings: Settings) -> retention.Export | None:
    folder = settings.dead_export_dir
    return None if folder is None else retention.Export(folder, settings.database_url.stem)


def _exit_code(pipeline_task: asyncio.Task[None]) -> int:
    error = None if pipeline_task.cancelled() else pipeline_task.exception()
    if error is None:
        return 0
    log.error("pipeline_failed", exc_info=error)
    return 1


def _warn(secret: str) -> None:
    for name, nearest in unknown_variables():
        log.warning("unknown_setting", name=name, meant=nearest)
    if len(secret) < SECRET_CHARS_MIN:
        log.warning("short_secret", name="JWT_SECRET", characters_min=SECRET_CHARS_MIN)


def _announce(settings: Settings, secret: str, listener: socket.socket, sink: Sink) -> None:
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    log.info(
        "serving",
        version=__version__,
        address=f"http://{host}:{port}",
        events_go_to=sink.place,
        spool=str(settings.database_url),
        ack=settings.ack.value,
    )
    if settings.jwt_secret is None:
        sys.stdout.write(_trial(secret, port))
        sys.stdout.flush()


def _trial(secret: str, port: int) -> str:
    """Return a curl line that works, for a newcomer's first event."""
    now = int(time.time())
    token = jwt.encode({"sub": "trial", "iat": now, "exp": now + TRIAL_TOKEN_S}, secret, algorithm="HS256")
    return (
        "\nNo JWT_SECRET is set, so one was made. Send a first event:\n\n"
        f"curl -X POST http://localhost:{port}/events -H 'Content-Type: application/json' \\\n"
        f"  -H 'Authorization: Bearer {token}' \\\n"
        """  -d '{"page": "/home", "event": "click", "label": "button_click", "param": {"key1": "value1"}}'\n\n"""
        f"and look at it: {sys.argv[0]} events tail\n\n"
    )
