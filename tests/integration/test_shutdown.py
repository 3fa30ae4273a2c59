"""The real server ends at a signal: every event that it answers then is safe, and nothing that hangs delays the end."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.servers.forebay import ForebayServer
from testbed.servers.ports import HOST, free_ports
from testbed.traffic.requests import PING, Client, assert_created, event
from testbed.traffic.wire import Wire

QUICK = {"FOREBAY_BULK_INTERVAL_S": "0.1"}
SENDERS = 6
REQUESTS_AT_ONCE = 20
ENOUGH_ANSWERS = 100
END_TIMEOUT_S = 20.0
"""Less than any request or idle connection is waited for otherwise."""

HANGING_DISK = '''
"""Let the spool's commits hang while a file is there, as a disk does that answers no more."""
import os, time
from forebay.spool.store import Store
write = Store.write
def hang(*work):
    while os.path.exists("hang"):
        open("hanging", "w").close()
        time.sleep(0.01)
    return write(*work)
Store.write = hang
'''


class Senders:
    """Clients that send pipelined events until their connections end, and remember which were answered with a 200."""

    def __init__(self, client: Client, path: str) -> None:
        self.accepted: list[str] = []
        self.statuses: set[int] = set()
        self.enough = threading.Event()
        self._client = client
        self._path = path
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _send(self, sender: int) -> None:
        number = 0
        with contextlib.suppress(ConnectionError), self._client.wire() as wire:
            while True:
                requests = [
                    self._client.request(self._path, event(log_id=f"{sender} {number + offset}"))
                    for offset in range(REQUESTS_AT_ONCE)
                ]
                wire.send(b"".join(requests))
                number += REQUESTS_AT_ONCE
                for _ in requests:
                    self._hear(wire)

    def _hear(self, wire: Wire) -> None:
        answer = wire.answer()
        self.statuses.add(answer.status)
        if answer.status == 200:
            self.accepted.append(answer.json["log_id"])
        if len(self.accepted) >= ENOUGH_ANSWERS:
            self.enough.set()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of an OpenSearch that accepts connections and never answers."""
    with socket.socket() as silent:
        silent.bind((HOST, free_ports(1)[0]))
        silent.listen()
        yield f"http://{HOST}:{silent.getsockname()[1]}"


def stored(server: ForebayServer) -> int:
    """Return how many events are in the spool of a server that has ended."""
    with contextlib.closing(sqlite3.connect(server.folder / "spool.db")) as spool:
        return int(spool.execute("SELECT coalesce(sum(events), 0) FROM groups").fetchone()[0])


@pytest.mark.parametrize("path", ["/events?ack=disk", "/events?ack=memory"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_amid_pipelined_requests_ends_the_server_and_keeps_all_that_was_answered(
    tmp_path: Path, number: signal.Signals, path: str
) -> None:
    with ForebayServer(tmp_path) as server:
        server.start()
        client = Client(server)
        senders = Senders(client, path)
        assert senders.enough.wait(END_TIMEOUT_S)
        server.signal(number)
        assert server.wait(END_TIMEOUT_S) == 0
        senders.join()
        assert senders.statuses <= {200, 503}
        assert stored(server) == 0
        client.documents(senders.accepted)


def test_a_second_signal_ends_the_server_at_once_and_loses_nothing_that_was_answered(
    tmp_path: Path, nowhere: str
) -> None:
    with ForebayServer(tmp_path, {"OPEN_SEARCH_DNS": nowhere, "FOREBAY_SHUTDOWN_TIMEOUT_S": "600", **QUICK}) as server:
        server.start()
        client = Client(server)
        senders = Senders(client, "/events?ack=disk")
        assert senders.enough.wait(END_TIMEOUT_S)
        server.signal(signal.SIGTERM)
        # Every connection ends with the first signal.
        senders.join()
        server.signal(signal.SIGTERM)
        assert server.wait(END_TIMEOUT_S) == 128 + signal.SIGTERM
        assert stored(server) >= len(senders.accepted)
        del server.settings["OPEN_SEARCH_DNS"]
        server.start()
        client.documents(senders.accepted)


def test_clients_that_keep_their_connections_open_do_not_delay_the_end(tmp_path: Path) -> None:
    with ForebayServer(tmp_path) as server, contextlib.ExitStack() as stack:
        server.start()
        client = Client(server)
        beginnings = (b"", PING[:-2], client.request()[:-1], client.request()[:-1] + b"\r\n")
        for beginning in beginnings:
            stack.enter_context(client.wire()).send(beginning)
        # More than fits into the buffers, and written by the application.
        stack.enter_context(Wire(server, receive_buffer=4_096)).send(client.request("/openapi.json", method="GET") * 30)
        idle, unread = stack.enter_context(client.wire()), stack.enter_context(Wire(server, receive_buffer=4_096))
        assert_created(idle.ask(client.request(body=event(log_id="before the end"))))
        unread.socket.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            for _ in range(1_000):
                unread.send(PING * 1_000)
        server.signal(signal.SIGTERM)
        idle.assert_closed()
        assert server.wait(END_TIMEOUT_S) == 0
        client.document("before the end")
        # Nothing that a client may cause is an error of ours.
        assert [line for line in server.log.splitlines() if json.loads(line)["level"] not in {"info", "warning"}] == []


def test_a_sink_that_hangs_is_given_the_deadline_and_the_rest_stays_in_the_spool(tmp_path: Path, nowhere: str) -> None:
    settings = {"OPEN_SEARCH_DNS": nowhere, "FOREBAY_SHUTDOWN_TIMEOUT_S": "0.5", **QUICK}
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        client = Client(server)
        for ack in ("disk", "memory"):
            assert_created(client.post(f"/events?ack={ack}", event(log_id=f"for {ack}")))
        assert server.stop(END_TIMEOUT_S) == 0
        assert stored(server) == 2
        del server.settings["OPEN_SEARCH_DNS"]
        server.start()
        client.documents(["for disk", "for memory"])


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple[ForebayServer, Wire]]:
    """A server with a hanging disk, and a client that waits for its answer."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "sitecustomize.py").write_text(HANGING_DISK)
    settings = {"PYTHONPATH": str(tmp_path / "disk"), "FOREBAY_SHUTDOWN_TIMEOUT_S": "0.5", **QUICK}
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        client = Client(server)
        assert_created(client.post(body=event(log_id="before the disk hung")))
        (tmp_path / "hang").touch()
        with client.wire() as wire:
            wire.send(client.request(body=event(log_id="never answered")))
            while not (tmp_path / "hanging").exists():
                assert wire.is_silent
            yield server, wire
        shutil.rmtree(tmp_path / "disk")
        (tmp_path / "hang").unlink()
        server.start()
        client.document("before the disk hung")


def test_a_disk_that_hangs_does_not_keep_the_server_from_ending(hanging: tuple[ForebayServer, Wire]) -> None:
    server, wire = hanging
    assert server.stop(END_TIMEOUT_S) == 1
    wire.assert_closed()
    ended = json.loads(server.log.splitlines()[-1])
    assert (ended["event"], ended["level"]) == ("ended_late", "error")


def test_a_second_signal_ends_a_server_whose_disk_hangs(hanging: tuple[ForebayServer, Wire]) -> None:
    server, wire = hanging
    with Client(server).wire() as idle:
        server.signal(signal.SIGTERM)
        # Two signals that nobody has taken are one.
        idle.assert_closed()
        server.signal(signal.SIGTERM)
    assert server.wait(END_TIMEOUT_S) == 128 + signal.SIGTERM
    wire.assert_closed()
    assert "ended_late" not in server.log
