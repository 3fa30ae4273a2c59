"""The memory of a server with nothing to do: a bound, and the packages that must not come back into it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testbed.servers.forebay import ForebayServer
from testbed.servers.ports import HOST, free_ports
from testbed.servers.process_usage import private_bytes, resident_bytes
from testbed.traffic.requests import Client, assert_created, event

IDLE_BYTES_MAX = 71_000_000
"""About a tenth more than is measured."""

WORKER_BYTES_MAX = 14_500_000

UNUSED = {
    "botocore": "signs requests for AWS, if the settings ask for that",
    "cryptography": "verifies the tokens of identity providers, if the settings name any (9 MB)",
    "forebay.cli.commands": "holds all commands but the server",
    "forebay.doctor": "is a command",
    "google.protobuf": "reads messages of OTLP, once a client sends some (2 MB)",
    "rich": "draws the tables of commands (4 MB)",
    "typer": "reads the options of commands, and the server has none (2 MB)",
    "uvicorn.protocols.websockets": "is for WebSockets, which nobody speaks here",
    "yaml": "would read a log configuration that there is not",
}
"""Packages that would stay in the memory of a server, each with the reason why it needs none of it."""


CODE = """
import atexit, sys
from forebay.cli import main
atexit.register(lambda: print(*sys.modules, sep="\\n"))
sys.exit(main(["serve"]))
"""


@pytest.fixture
def settings() -> dict[str, str]:
    """Settings with an OpenSearch that nobody answers for; without one there would be no client for it in memory."""
    return {"OPEN_SEARCH_DNS": f"http://{HOST}:{free_ports(1)[0]}", "FOREBAY_SHUTDOWN_TIMEOUT_S": "0.1"}


@pytest.fixture
def client(tmp_path: Path, settings: dict[str, str]) -> Client:
    """A client of a server that prints the modules in its memory when it ends."""
    return Client(ForebayServer(tmp_path, settings, [sys.executable, "-c", CODE]))


def test_an_idle_server_takes_little_memory_and_has_nothing_in_it_that_it_does_not_use(client: Client) -> None:
    with client.server as server:
        server.start()
        for number in range(100):
            assert_created(client.post("/events", event(log_id=f"{number}")))
        idle_bytes = resident_bytes(server.pid)
        server.stop()
        modules = server.output.splitlines()

    assert {"aiohttp", "jwt", "structlog", "uvicorn"} <= set(modules)
    assert [name for name in modules if any(f"{name}.".startswith(f"{unused}.") for unused in UNUSED)] == []
    assert idle_bytes < IDLE_BYTES_MAX


def test_a_worker_takes_little_memory_that_it_does_not_share(tmp_path: Path, settings: dict[str, str]) -> None:
    with ForebayServer(tmp_path, {**settings, "FOREBAY_WORKERS": "2"}) as server:
        client = Client(server)
        server.start()
        for number in range(100):
            assert_created(client.post("/events", event(log_id=f"{number}")))
        private = [private_bytes(pid) for pid in server.worker_pids.values()]

    assert len(private) == 2
    assert max(private) < WORKER_BYTES_MAX
