"""Measures what `kill -9` loses: events with a 200 that never reach the sink, even after a new start."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import clients, processes
from benchmarks.candidates import HERE, PROTOTYPE, Candidate, Launch
from benchmarks.processes import LOAD_CORE, SERVER_CORE, BenchmarkError
from testbed.servers.ports import free_ports

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

CONNECTIONS = 64
USERS = 100
KILLED_AFTER_S = 2.0
QUIET_S = 3.0
"""Longer than the interval of the bulks and a first pause before a bulk is tried again."""

DELIVERED_WITHIN_S = 60.0


@dataclasses.dataclass
class Sent:
    """The events of all clients."""

    answered: set[str] = dataclasses.field(default_factory=set)
    requests: int = 0


def measure_all(candidates: list[Candidate], work: Path) -> list[dict[str, Any]]:
    """Kill each candidate that delivers, with the sink up and with the sink away."""
    runs = []
    for candidate in candidates:
        # The prototype takes up nothing after a start, by design.
        if candidate.delivers and candidate.name != PROTOTYPE:
            for sink_away in (False, True):
                runs.append(measure(candidate, work, sink_away=sink_away))
                print(f"kill: {json.dumps(runs[-1])}", flush=True)
    return runs


def measure(candidate: Candidate, work: Path, *, sink_away: bool) -> dict[str, Any]:
    """Kill a server under load, start it again on the same directory, and see which answered events arrive.

    If the sink is away, it refuses everything until the server is killed, and takes everything afterwards.
    """
    with tempfile.TemporaryDirectory(dir=work) as folder:
        launch = Launch(Path(folder), *free_ports(2))
        with contextlib.ExitStack() as until_killed:
            sink = until_killed.enter_context(_sink(launch, refuse=sink_away))
            with _server(candidate, launch) as server:
                sent = asyncio.run(_drive(candidate, launch.port, server))
            arrived = _ids(launch)
            if not sink_away:
                # The same sink goes on: it knows what arrived before.
                return _again(candidate, launch, sent, sink_away=False)
            assert not arrived, "the sink took documents although it should refuse them"
            processes.stop(sink)
        with _sink(launch, refuse=False):
            return _again(candidate, launch, sent, sink_away=True)


def _again(candidate: Candidate, launch: Launch, sent: Sent, *, sink_away: bool) -> dict[str, Any]:
    """Start the server again, and return what has arrived when no more comes."""
    # A new port, since the old one may still be held by connections of the killed server.
    launch = dataclasses.replace(launch, port=free_ports(1)[0])
    with _server(candidate, launch):
        lost = _lost(launch, sent.answered)
    return {
        "candidate": candidate.name,
        "sink_away": sink_away,
        "answered": len(sent.answered),
        "lost": lost,
    }


def _lost(launch: Launch, answered: set[str]) -> int:
    """Wait until all answered events are in the sink or no more come; return how many are not."""
    start = changed = time.monotonic()
    arrived = _ids(launch)
    while (now := time.monotonic()) - changed < QUIET_S and now - start < DELIVERED_WITHIN_S:
        if answered <= arrived:
            break
        time.sleep(0.2)
        ids = _ids(launch)
        if len(ids) != len(arrived):
            arrived, changed = ids, time.monotonic()
    return len(answered - arrived)


def _ids(launch: Launch) -> set[str]:
    status, body = processes.get(launch.sink_port, "/_ids", timeout=30)
    assert status == 200, body  # noqa: PLR2004
    return set(body.decode().split())


@contextlib.contextmanager
def _sink(launch: Launch, *, refuse: bool) -> Iterator[subprocess.Popen[bytes]]:
    command = [clients.PYTHON, str(HERE / "counting_sink.py"), "--port", str(launch.sink_port), "--keep-ids"]
    command += ["--refuse"] if refuse else []
    with processes.running(command, core=LOAD_CORE, directory=launch.directory) as sink:
        processes.wait_until_up(sink, launch.sink_port)
        yield sink


@contextlib.contextmanager
def _server(candidate: Candidate, launch: Launch) -> Iterator[subprocess.Popen[bytes]]:
    with processes.running(
        candidate.command(launch),
        core=SERVER_CORE,
        directory=launch.directory,
        environment=candidate.environment(launch),
    ) as server:
        processes.wait_until_up(server, launch.port)
        yield server


async def _drive(candidate: Candidate, port: int, server: subprocess.Popen[bytes]) -> Sent:
    """Send events over many connections, each as soon as the last is answered, and kill the server meanwhile."""
    sent, users = Sent(), clients.make(USERS)
    async with asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            group.create_task(_send(candidate, port, users[number % USERS], sent))
        await asyncio.sleep(KILLED_AFTER_S)
        server.kill()
    if not sent.answered:
        raise BenchmarkError(f"{candidate.name} has answered no event before it was killed")
    return sent


async def _send(candidate: Candidate, port: int, client: clients.Client, sent: Sent) -> None:
    """Send events over one connection until it breaks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            sent.requests += 1
            event = clients.event(sent.requests)
            content = clients.content(candidate.form, client, [event])
            writer.write(clients.request(candidate.form.path(1), client, content))
            status = await _answer(reader)
            if status != 200:  # noqa: PLR2004
                raise BenchmarkError(f"{candidate.name} answers {status}")
            sent.answered.add(event["log_id"])
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    _, _, rest = head.partition("\r\ncontent-length:")
    await reader.readexactly(int(rest.split("\r\n", 1)[0]))
    return int(head.split(" ", 2)[1])
