"""Starts a server as `forebay serve` would, sends it single events and batches, and takes its figures.

The spool of the measurement lies in a folder beside the configured one, and goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import msgspec
from pydantic import SecretStr

from forebay.bench import load as generator
from forebay.bench.load import Load, Tally
from forebay.bench.processes import BenchFailed, Usage, forked, has_ended, measure_processors, measure_usage, share_busy
from forebay.bench.result import Machine, Measurement, Result, evaluate
from forebay.bench.sink import StandIn
from forebay.errors import SettingsError, SinkUnreachable
from forebay.setting_values import SinkHost
from forebay.settings import Settings
from forebay.sinks.selection import make_sink
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_own_token

HOST = "127.0.0.1"
SYNCS = 50
START_S = 30.0
POLL_S = 0.05
DRAIN_S = 1.0
WARM_UP_S = 1.0
TOKEN_LIFE_S = 3600
EVENT_BYTES_MAX = 400
BATCH_EVENTS = 100
MESSAGE_BYTES = 1 << 20


def run(settings: Settings, seconds: float, *, use_sink: bool) -> Generator[tuple[str, Result], None, None]:
    """Measure single events, then batches; give each result with its name.

    Raises:
        BenchFailed: the server does not start, or takes nothing.
        SettingsError: a setting does not allow it.
    """
    # All of these end in order: with the folder and the processes gone.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    folder = settings.database_url.resolve().parent
    try:
        own_folder = tempfile.TemporaryDirectory(prefix=".forebay-bench-", dir=folder)
    except OSError as error:
        raise SettingsError(f"DATABASE_URL: nothing can be written into {folder}: {error.strerror}") from error
    with (
        own_folder as own,
        socket.create_server((HOST, 0)) as sink_listener,
    ):
        changed = _change(settings, Path(own), sink_listener.getsockname()[1], use_sink=use_sink)
        sync_s = measure_sync(Path(own))
        # The cause of a failure says more than that no index could be deleted, either.
        unless_failed: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        try:
            yield from _run(changed, Path(own), sink_listener, seconds, sync_s, use_sink=use_sink)
        except BenchFailed:
            unless_failed = contextlib.suppress(BenchFailed)
            raise
        finally:
            if use_sink:
                with unless_failed:
                    asyncio.run(_delete_index(changed))


def _run(
    settings: Settings, folder: Path, sink_listener: socket.socket, seconds: float, sync_s: float, *, use_sink: bool
) -> Generator[tuple[str, Result], None, None]:
    ours, theirs = socket.socketpair()
    log_path = folder / "server.log"
    with (
        ours,
        theirs,
        forked(lambda: _serve(settings, ours, theirs), log_path) as server_pid,
        forked(lambda: _send(ours, theirs), folder / "load.log") as load_pid,
    ):
        theirs.close()
        machine = Machine(len(os.sched_getaffinity(0)), settings.workers, use_sink)
        measuring = _Measuring(settings, server_pid, load_pid, ours)
        batch_events = max(1, min(BATCH_EVENTS, settings.batch_events_max, settings.body_bytes_max // EVENT_BYTES_MAX))
        with asyncio.Runner() as runner:
            runner.run(measuring.open(sink_listener, log_path))
            runner.run(measuring.warm_up(batch_events))
            for name, events in (("single events", 0), (f"batches of {batch_events}", batch_events)):
                measured = runner.run(measuring.measure(seconds / 2, events, sync_s))
                yield name, evaluate(measured, machine)


def _change(settings: Settings, folder: Path, sink_port: int, *, use_sink: bool) -> Settings:
    """Return the settings with all that would touch real events changed."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    changes: dict[str, object] = {
        "database_url": folder / "spool.db",
        "dead_export_dir": None,
        "host": HOST,
        "server_port": port,
        "jwt_secret": SecretStr(secrets.token_hex(32)),
        "server_environment": f"bench-{secrets.token_hex(4)}",
        "metrics_open": True,
        "shutdown_timeout_s": DRAIN_S,
    }
    if not use_sink:
        changes |= {
            "open_search_dns": (SinkHost(f"http://{HOST}:{sink_port}"),),
            "open_search_api_key": None,
            "open_search_bearer": None,
            "open_search_ca_file": None,
            "open_search_cert_file": None,
            "open_search_key_file": None,
            "open_search_aws_region": None,
        }
    return settings.model_copy(update=changes)


def _secret(settings: Settings) -> str:
    return settings.jwt_secret.get_secret_value() if settings.jwt_secret else ""


def measure_sync(folder: Path) -> float:
    """Return the median time in which the disk syncs a page at the end of a file, in seconds."""
    took = []
    descriptor = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(SYNCS):
            os.write(descriptor, bytes(4096))
            began_at = time.perf_counter()
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - began_at)
    finally:
        os.close(descriptor)
    return statistics.median(took)


# The other processes


def _serve(settings: Settings, *inherited: socket.socket) -> int:
    for link in inherited:
        link.close()
    # As `forebay serve` does it.
    from forebay import server  # noqa: PLC0415 - only the server's process needs it
    from forebay.workers import supervisor  # noqa: PLC0415 - the same

    return supervisor.run(settings) if settings.workers > 1 else server.run(settings)


def _send(parents: socket.socket, link: socket.socket) -> int:
    """Run a load for each message, until the other end is closed, also by the death of this process's parent."""
    parents.close()
    while message := link.recv(MESSAGE_BYTES):
        tally = msgspec.msgpack.encode(generator.run(msgspec.msgpack.decode(message, type=Load)))
        link.sendall(len(tally).to_bytes(8) + tally)
    return 0


# This process


class _Measuring:
    """Sends loads to the server of the measurement, and takes its figures."""

    def __init__(self, settings: Settings, server_pid: int, load_pid: int, link: socket.socket) -> None:
        self._port = settings.server_port
        self._token = make_own_token(settings, _secret(settings), "bench", [Scope.WRITE], TOKEN_LIFE_S)
        self._server_pid = server_pid
        self._load_pid = load_pid
        self._link = link
        link.settimeout(0)

    async def open(self, sink_listener: socket.socket, log_path: Path) -> None:
        """Open the stand-in, and wait until the server answers."""
        await asyncio.get_running_loop().create_server(StandIn, sock=sink_listener)
        deadline = time.monotonic() + START_S
        while True:
            try:
                await _get(self._port, "/ping")
            except OSError:
                if has_ended(self._server_pid) or time.monotonic() > deadline:
                    raise BenchFailed(f"the server of the measurement did not start: {_last_line(log_path)}") from None
                await asyncio.sleep(POLL_S)
            else:
                return

    async def warm_up(self, batch_events: int) -> None:
        """Send a first load, and wait until the sink has taken some of it: a new index takes a second."""
        await self._send(WARM_UP_S, batch_events)
        deadline = time.monotonic() + START_S
        while not _delivered(await self._read_metrics()):
            if time.monotonic() > deadline:
                raise BenchFailed(f"the sink took nothing within {START_S:g} s; see forebay doctor")
            await asyncio.sleep(POLL_S)

    async def measure(self, seconds: float, batch_events: int, sync_s: float) -> Measurement:
        """Send a load, and return its figures."""
        metrics, server, load = await self._read_metrics(), *self._measure_usage()
        processors, began_at = measure_processors(), time.perf_counter()
        tally = await self._send(seconds, batch_events)
        elapsed_s = time.perf_counter() - began_at
        busy_share = share_busy(processors, measure_processors())
        server_after, load_after = self._measure_usage()
        metrics_after = await self._read_metrics()
        return Measurement(
            elapsed_s,
            tally,
            server_after.processor_s - server.processor_s,
            load_after.processor_s - load.processor_s,
            busy_share,
            _read(metrics_after, "forebay_commits_total") - _read(metrics, "forebay_commits_total"),
            _delivered(metrics_after) - _delivered(metrics),
            server_after.written_bytes - server.written_bytes,
            server_after.peak_bytes,
            sync_s,
        )

    async def _send(self, seconds: float, batch_events: int) -> Tally:
        """Let the load's process send for a time; return the answers."""
        load = Load(self._port, self._token, seconds, batch_events)
        await asyncio.get_running_loop().sock_sendall(self._link, msgspec.msgpack.encode(load))
        length = int.from_bytes(await _receive(self._link, 8))
        tally = msgspec.msgpack.decode(await _receive(self._link, length), type=Tally)
        if not tally.answered:
            raise BenchFailed(f"the server of the measurement took nothing: {tally.refusal or 'no answer came'}")
        return tally

    def _measure_usage(self) -> tuple[Usage, Usage]:
        return measure_usage(self._server_pid), measure_usage(self._load_pid)

    async def _read_metrics(self) -> str:
        return await _get(self._port, "/metrics")


def _last_line(log_path: Path) -> str:
    return log_path.read_text(errors="replace").strip().rpartition("\n")[2]


def _delivered(metrics: str) -> int:
    return _read(metrics, "forebay_outcomes_total", 'outcome="delivered"')


def _read(metrics: str, name: str, label: str = "") -> int:
    """Return a counter, the sum of all workers'."""
    found = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", metrics, flags=re.MULTILINE)
    return sum(int(float(value)) for labels, value in found if label in labels)


async def _receive(link: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        piece = await asyncio.get_running_loop().sock_recv(link, length - len(received))
        if not piece:
            raise BenchFailed("the load of the measurement has ended early")
        received += piece
    return bytes(received)


async def _get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).decode().partition("\r\n\r\n")[2]
    finally:
        writer.close()


async def _delete_index(settings: Settings) -> None:
    sink = make_sink(settings)
    try:
        for month in await sink.list_months():
            await sink.delete_month(month.name)
    except SinkUnreachable as error:
        raise BenchFailed(f"delete the indices events_{settings.server_environment}_* yourself: {error}") from error
    finally:
        await sink.close()
