"""A real server whose files are removed says so, and no advice of the doctor loses events."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.servers.forebay import ForebayServer
from testbed.servers.ports import HOST, free_ports
from testbed.traffic.requests import Client
from testbed.traffic.wire import Wire

PATIENCE_S = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForebayServer]:
    """Run a server whose sink is away, so that all events stay in its spool."""
    with ForebayServer(tmp_path, {"OPEN_SEARCH_DNS": f"http://{HOST}:{free_ports(1)[0]}"}) as server:
        server.start()
        yield server


def post(server: ForebayServer, ack: str) -> int:
    with Wire(server) as wire:
        return wire.ask(Client(server).request(f"/events?ack={ack}")).status


def ask_ready(server: ForebayServer) -> tuple[int, list[str]]:
    with Wire(server) as wire:
        reader = Client(server, f"Bearer {server.token(scope='admin')}")
        answer = wire.ask(reader.request("/health/ready", None, method="GET"))
    return answer.status, json.loads(answer.body).get("causes", [])


def doctor(server: ForebayServer) -> str:
    """Return the findings of the doctor about the server and its spool."""
    command = [str(Path(sys.executable).parent / "forebay"), "doctor"]
    settings = {name: value for name, value in server.settings.items() if name != "OPEN_SEARCH_DNS"}
    said = subprocess.run(
        command, cwd=server.folder, env=settings, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    ).stdout
    return "\n".join(line for line in said.splitlines() if "server" in line or "spool" in line)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


@pytest.mark.parametrize("ends", [[""], ["", "-wal", "-shm"], ["", "-wal", "-shm", ".lock"]])
def test_a_server_without_its_database_takes_nothing_and_nobody_is_told_to_end_it(
    server: ForebayServer, tmp_path: Path, ends: list[str]
) -> None:
    assert post(server, "disk") == 200
    for end in ends:
        (tmp_path / f"spool.db{end}").unlink()

    assert post(server, "disk") == 503
    until(lambda: ask_ready(server)[0] == 503)
    assert post(server, "memory") == 503
    (cause, *_) = ask_ready(server)[1]
    assert "removed or replaced while the server runs" in cause
    assert "do not end it before everything is delivered" in cause
    assert server.log.count("spool_files_changed") == 1
    said = doctor(server)
    assert cause in said
    assert "restart" not in said
    assert "start the server;" not in said
    assert server.is_running


def test_a_log_that_is_removed_costs_nothing_after_a_kill_too(server: ForebayServer, tmp_path: Path) -> None:
    assert post(server, "disk") == 200
    (tmp_path / "spool.db-wal").unlink()
    until(lambda: ask_ready(server)[0] == 503)
    assert "restart this server" in ask_ready(server)[1][0]
    server.kill()

    server.start()

    assert '"pending_events": 1' in server.log or "pending_events=1" in server.log
    assert post(server, "disk") == 200


def test_the_first_of_two_servers_on_one_spool_stops_taking(server: ForebayServer, tmp_path: Path) -> None:
    assert post(server, "disk") == 200
    (tmp_path / "spool.db.lock").unlink()
    with ForebayServer(tmp_path, {**server.settings, "SERVER_PORT": str(free_ports(1)[0])}) as second:
        second.start()

        assert post(server, "disk") == 503
        assert post(second, "disk") == 200
        assert "restart this server, and start no other" in ask_ready(server)[1][0]
