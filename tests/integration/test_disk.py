"""The real server on a disk that fills up, and on one that changes written bytes: no acknowledged event is lost."""

from __future__ import annotations

import json
import random
import resource
import socket
import socketserver
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from forebay.spool.files import PAGE_BYTES
from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer, ForebayStartError
from testbed.servers.observing import start_in_vain
from testbed.servers.ports import HOST, free_ports
from testbed.servers.small_disk import SmallDisk
from testbed.traffic.index import Index
from unit.pipeline.fakes import read_rows

PATIENCE_S = 60.0
DISK_BYTES = 48 * 1024 * 1024
QUICK = {
    "FOREBAY_BULK_INTERVAL_S": "0.1",
    "FOREBAY_SHUTDOWN_TIMEOUT_S": "1",
    "FOREBAY_RETRY_INTERVAL_S": "1",
    "FOREBAY_RETRY_DELAY_S_MAX": "0.5",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", DISK_BYTES) as disk:
        yield disk


class Door(socketserver.ThreadingTCPServer):
    """The way to a sink that is away until it is opened."""

    allow_reuse_address = True
    daemon_threads = True
    target: ClassVar[tuple[str, int]]


class Passage(socketserver.BaseRequestHandler):
    """One connection through the door."""

    def handle(self) -> None:
        with socket.create_connection(Door.target) as there:
            back = threading.Thread(target=pump, args=(there, self.request), daemon=True)
            back.start()
            pump(self.request, there)
            back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def send(server: ForebayServer, log_ids: list[str], label_bytes: int = 600) -> int:
    """Send a batch that hardly shrinks; return the answer's status."""
    chance = random.Random(log_ids[0])
    events = [
        {"log_id": log_id, "page": "/p", "event": "e", "label": chance.randbytes(label_bytes).hex()}
        for log_id in log_ids
    ]
    connection = HTTPConnection(HOST, server.port, timeout=PATIENCE_S)
    try:
        headers = {"Authorization": f"Bearer {server.token()}", "Content-Type": "application/json"}
        connection.request("POST", "/events/batch", json.dumps(events), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def send_until_refused(server: ForebayServer, prefix: str) -> list[str]:
    """Send batches until one is refused; return the acknowledged ones."""
    accepted: list[str] = []
    for number in range(1_000):
        log_ids = [f"{prefix}-{number}-{index}" for index in range(100)]
        status = send(server, log_ids)
        if status == 503:
            return accepted
        assert status == 200
        accepted += log_ids
    raise AssertionError("nothing was refused")


def accepts_again(server: ForebayServer, name: str) -> bool:
    return send(server, [name]) == 200


def integrity(path: Path) -> list[tuple[str]]:
    return read_rows(path, "PRAGMA integrity_check")


async def test_a_full_disk_refuses_events_delivers_what_it_has_and_recovers_by_itself(
    opensearch: OpenSearchAddress, disk: SmallDisk, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    settings = {**QUICK, "OPEN_SEARCH_DNS": f"http://{HOST}:{port}", "SERVER_ENVIRONMENT": "fulldisk"}
    spool = disk.path / "spool.db"
    with ForebayServer(tmp_path, {**settings, "DATABASE_URL": f"sqlite://{spool}"}) as server:
        server.start()
        accepted = send_until_refused(server, "first")
        assert len(accepted) > 5_000
        disk.fill()
        assert send(server, ["refused"]) == 503
        assert "disk_full" in server.log

        # The sink comes back: accepted events are delivered and deleted, on a disk that is still full.
        place = urlsplit(opensearch.url)
        Door.target = (place.hostname or HOST, place.port or 9200)
        with Door((HOST, port), Passage) as door:
            threading.Thread(target=door.serve_forever, daemon=True).start()
            index = Index(opensearch.url, "fulldisk")
            assert await index.wait_count(len(accepted), PATIENCE_S) == len(accepted)
            until(lambda: read_rows(spool, "SELECT events FROM totals") == [(0,)])
            assert {log_id async for log_id, _ in index.documents()} == set(accepted)

            disk.empty()
            until(lambda: accepts_again(server, "again"))
            assert await index.wait_count(len(accepted) + 1, PATIENCE_S) == len(accepted) + 1
            assert server.stop() == 0
            door.shutdown()
    assert integrity(spool) == [("ok",)]


def test_a_server_that_was_killed_on_a_full_disk_starts_again_with_everything(disk: SmallDisk, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    spool = disk.path / "spool.db"
    settings = {**QUICK, "OPEN_SEARCH_DNS": f"http://{HOST}:{port}", "DATABASE_URL": f"sqlite://{spool}"}
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        accepted = [f"event-{number}" for number in range(1_000)]
        for start in range(0, len(accepted), 100):
            assert send(server, accepted[start : start + 100]) == 200
        server.kill()
        disk.fill()

        server.start()
        assert send(server, ["refused"]) == 503
        disk.empty()
        until(lambda: accepts_again(server, "after"))
        server.kill()
    assert sum(events for (events,) in read_rows(spool, "SELECT events FROM groups")) == len(accepted) + 1
    assert integrity(spool) == [("ok",)]


def test_a_write_that_fails_is_answered_with_503_and_harms_nothing(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with ForebayServer(tmp_path, {**QUICK, "OPEN_SEARCH_DNS": f"http://{HOST}:{port}"}) as server:
        server.start()
        assert send(server, ["before"]) == 200
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (200_000, hard))
        accepted = send_until_refused(server, "limited")
        assert send(server, ["refused"], 50_000) == 503

        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        until(lambda: accepts_again(server, "after"))
        server.kill()
        events = sum(events for (events,) in read_rows(tmp_path / "spool.db", "SELECT events FROM groups"))
        assert events == len(accepted) + 2
    assert integrity(tmp_path / "spool.db") == [("ok",)]


def test_damage_that_is_met_ends_the_server_and_the_next_start_saves_the_rest(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    spool = tmp_path / "spool.db"
    with ForebayServer(tmp_path, {**QUICK, "OPEN_SEARCH_DNS": f"http://{HOST}:{port}"}) as server:
        server.start()
        accepted = [f"event-{number}-{index}" for number in range(300) for index in range(10)]
        for start in range(0, len(accepted), 10):
            assert send(server, accepted[start : start + 10]) == 200
        assert server.stop() == 0
        with closing(sqlite3.connect(spool)) as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
        with spool.open("r+b") as file:
            file.seek(pages // 2 * PAGE_BYTES)
            file.write(b"\x55" * PAGE_BYTES)

        # The check of the whole file finds the damage, if nothing else meets it before.
        with pytest.raises(ForebayStartError) as ended:
            start_in_vain(server)
        assert ended.value.exit_code == 1
        assert "spool_damaged" in server.log
        assert (tmp_path / "spool.db.damaged").exists()

        server.start()
        assert "spool_saved" in server.log
        assert send(server, ["after"]) == 200
        assert server.stop() == 0
    events = sum(events for (events,) in read_rows(spool, "SELECT events FROM groups"))
    assert len(accepted) + 1 - 100 <= events <= len(accepted) + 1
    # A damaged row may have been met before the check came to it.
    assert read_rows(spool, "SELECT kind FROM incidents ORDER BY id")[-1] == ("damaged",)
