"""Many connections and many bytes at once, over real connections: the slowest are dropped, and others are served."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.servers.forebay import ForebayServer
from testbed.servers.process_usage import limit_descriptors, open_connections, open_descriptors, resident_bytes
from testbed.traffic.requests import LIVE, PING, Client, assert_created, assert_problem, event
from testbed.traffic.wire import TIMEOUT_S, Wire

CONNECTIONS_MAX = 30
BODY_BYTES_MAX = 500_000
IN_HAND_BYTES_MAX = 2_000_000
SETTINGS = {
    "FOREBAY_CONNECTIONS_MAX": str(CONNECTIONS_MAX),
    "FOREBAY_BODY_BYTES_MAX": str(BODY_BYTES_MAX),
    "FOREBAY_IN_HAND_BYTES_MAX": str(IN_HAND_BYTES_MAX),
    "FOREBAY_METRICS_OPEN": "true",
    "FOREBAY_BULK_INTERVAL_S": "0.1",
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with little room."""
    with ForebayServer(tmp_path_factory.mktemp("narrow"), SETTINGS) as server:
        server.start()
        yield Client(server)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with little room for bytes, and much for connections."""
    with ForebayServer(tmp_path_factory.mktemp("roomy"), SETTINGS | {"FOREBAY_CONNECTIONS_MAX": "5000"}) as server:
        server.start()
        yield Client(server)


def gave_way(client: Client, kind: str) -> int:
    """Return how many of a kind were closed or refused so far."""
    lines = client.get("/metrics").body.decode().splitlines()
    counts = dict(line.rsplit(" ", 1) for line in lines if line.startswith("forebay_crowded_total"))
    return int(float(counts.get(f'forebay_crowded_total{{gave_way="{kind}"}}', "0")))


def wait_until(is_so: Callable[[], bool], goal: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline, goal
        time.sleep(0.02)


@pytest.fixture
def wires(narrow: Client) -> Iterator[list[Wire]]:
    """As many connections as the server takes, with no other ones open."""
    wait_connections(narrow, 0)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(narrow.wire()) for _ in range(CONNECTIONS_MAX)]
        wait_connections(narrow, CONNECTIONS_MAX)
        yield opened
    wait_connections(narrow, 0)


def wait_connections(narrow: Client, wanted: int) -> None:
    server = narrow.server
    wait_until(lambda: open_connections(server.pid, server.port) == wanted, f"never had {wanted} connections")


# Connections


def test_the_connection_that_has_been_idle_longest_is_closed_for_a_new_one(narrow: Client, wires: list[Wire]) -> None:
    for wire in wires:
        assert wire.ask(PING).body == b"pong"
    assert wires[0].ask(LIVE).json == {"status": "alive"}
    with narrow.wire() as newcomer:
        assert_created(newcomer.ask(narrow.request()))
        wires[1].assert_closed()
        for wire in (wires[0], *wires[2:]):
            assert wire.ask(PING).body == b"pong"


def test_connections_that_say_nothing_do_not_keep_others_out(narrow: Client, wires: list[Wire]) -> None:
    for _ in range(2 * CONNECTIONS_MAX):
        assert_created(narrow.post())
    assert len(wires) == CONNECTIONS_MAX


def test_connections_that_were_refused_and_linger_make_room_for_others(narrow: Client, wires: list[Wire]) -> None:
    for wire in wires:
        wire.send(b"garbage\r\n\r\n")
        assert_problem(wire.answer(), 400)
    for _ in range(CONNECTIONS_MAX):
        assert_created(narrow.post())
    for wire in wires:
        wire.assert_closed()


def test_if_no_connection_is_idle_a_new_one_is_told_to_try_again(narrow: Client, wires: list[Wire]) -> None:
    request = narrow.request(body=event(log_id="begun before it was full", param="x" * 1000))
    for wire in wires:
        wire.send(request[:-500])
    # The server knows of a request only once it has read of it.
    wait_until(lambda: narrow_is_full(narrow), "somebody was idle")
    with narrow.wire() as newcomer:
        answer = newcomer.answer()
        assert_problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["connection"] == "close"
        newcomer.assert_closed()
    for wire in wires:
        assert_created(wire.ask(request[-500:]), "begun before it was full")
    assert_created(narrow.post())


def narrow_is_full(narrow: Client) -> bool:
    with narrow.wire() as probe:
        probe.send(PING)
        with contextlib.suppress(ConnectionError):
            return probe.answer().status == 503
        return False


def test_an_overload_is_counted_and_logged_once(narrow: Client, wires: list[Wire]) -> None:
    before = gave_way(narrow, "idle_connection")  # also a connection: the first of the ten takes its place
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(narrow.wire()).ask(PING)
    assert gave_way(narrow, "idle_connection") >= before + 9
    assert len(wires) == CONNECTIONS_MAX
    lines = [json.loads(line) for line in narrow.server.log.splitlines() if '"crowded"' in line]
    assert len([entry for entry in lines if entry["gave_way"] == "idle_connection"]) == 1


def test_without_file_descriptors_the_server_goes_on_and_takes_connections_again(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"FOREBAY_BULK_INTERVAL_S": "0.1"}) as server:
        server.start()
        client = Client(server)
        with client.wire() as early:
            assert_created(early.ask(client.request()))
            limit_descriptors(server.pid, open_descriptors(server.pid) + 3)
            with contextlib.ExitStack() as stack:
                answered = 0
                for _ in range(30):
                    wire = stack.enter_context(client.wire())
                    with contextlib.suppress(ConnectionError):
                        answered += wire.ask(PING).status == 200
                assert 0 < answered < 15
                assert_created(early.ask(client.request(body=event(log_id="meanwhile"))), "meanwhile")
            wait_until(lambda: _answers(client), "it takes no connections any more")
        client.document("meanwhile")
        assert server.stop() == 0


def _answers(client: Client) -> bool:
    with contextlib.suppress(ConnectionError), client.wire() as wire:
        return wire.ask(PING).status == 200
    return False


# Bytes


def test_answers_that_wait_for_a_disk_that_hangs_have_a_limit_too(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, SETTINGS) as server, contextlib.ExitStack() as stack:
        server.start()
        client = Client(server)
        before = resident_bytes(server.pid)
        spool = stack.enter_context(contextlib.closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)))
        spool.execute("BEGIN IMMEDIATE")
        wire = stack.enter_context(client.wire())
        # The answer names every field, so it is as large as the request.
        fields = b",".join(b'"%0200d":%b' % (number, b"[" * 33 + b"]" * 33) for number in range(BODY_BYTES_MAX // 280))
        bad = b'[{"page":"a","event":"b",%b}]' % fields
        wire.send(client.request(body=event(log_id="it hung")))
        wire.send_while_open(client.request("/events/batch", bad), 80)
        wait_until(lambda: gave_way(client, "slow_request") > 0, "nothing gave way")
        # They would be 40 MB.
        assert resident_bytes(server.pid) - before < 25_000_000
        spool.execute("ROLLBACK")
        assert_created(wire.answer(), "it hung")
        client.document("it hung")
        assert_created(client.post())


def test_bodies_that_never_end_make_room_for_others_and_are_told_why(roomy: Client) -> None:
    before = resident_bytes(roomy.server.pid)
    request = roomy.request("/events/batch", b"[" + event(param="x" * (BODY_BYTES_MAX - 1_000)) + b"]")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(roomy.wire()) for _ in range(200)]
        for number, wire in enumerate(wires):
            wire.send(request[:-1])
            if number % 20 == 0:
                assert_created(roomy.post())
        # They ask for 100 MB, and get 2.
        assert resident_bytes(roomy.server.pid) - before < 40_000_000
        answer = wires[0].answer()
        assert_problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert wires[-1].ask(request[-1:]).json["accepted"] == 1
    assert_created(roomy.post())


def test_many_large_requests_one_after_the_other_are_all_taken(roomy: Client) -> None:
    before = gave_way(roomy, "slow_request"), gave_way(roomy, "new_request")
    body = b"[" + event(param="x" * (BODY_BYTES_MAX - 1_000)) + b"]"
    with roomy.wire() as wire:
        for _ in range(20):
            assert wire.ask(roomy.request("/events/batch", body)).json["accepted"] == 1
        assert_problem(wire.ask(roomy.request("/events/batch", body + b" " * 1_000)), 413)
    for _ in range(10):
        with roomy.wire() as wire:
            wire.send(roomy.request("/events/batch", body)[:-1])
    assert (gave_way(roomy, "slow_request"), gave_way(roomy, "new_request")) == before, "their bytes were kept"


def test_heads_that_never_end_make_room_for_others(roomy: Client) -> None:
    head = PING.removesuffix(b"\r\n") + b"".join(b"x-%d: %b\r\n" % (number, b"y" * 140) for number in range(90))
    before = gave_way(roomy, "slow_request")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(roomy.wire()) for _ in range(300)]
        for wire in wires:
            wire.send(head)
        answer = wires[0].answer()
        assert_problem(answer, 503)
        wires[0].assert_closed()
        assert wires[-1].ask(b"\r\n").body == b"pong"
        assert_created(roomy.post())
    assert gave_way(roomy, "slow_request") > before


def test_clients_that_read_no_answers_make_room_for_others(roomy: Client) -> None:
    before, memory = gave_way(roomy, "slow_request"), resident_bytes(roomy.server.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(25):
            wire = stack.enter_context(Wire(roomy.server, receive_buffer=4_096))
            wire.socket.settimeout(0.05)
            with contextlib.suppress(TimeoutError, ConnectionError):
                for _ in range(100):
                    wire.send(PING * 1_000)
            assert_created(roomy.post())
        wait_until(lambda: gave_way(roomy, "slow_request") > before, "all of them were kept")
    assert resident_bytes(roomy.server.pid) - memory < 40_000_000


def test_while_the_disk_hangs_requests_are_taken_up_to_the_limit_and_refused_beyond(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, SETTINGS) as server, contextlib.ExitStack() as stack:
        server.start()
        client = Client(server)
        spool = stack.enter_context(contextlib.closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)))
        spool.execute("BEGIN IMMEDIATE")
        wires = [stack.enter_context(client.wire()) for _ in range(10)]
        for number, wire in enumerate(wires):
            wire.send(client.request(body=event(log_id=f"hung {number}", param="x" * (BODY_BYTES_MAX - 1_000))))
        # Some are refused as soon as those before them have arrived.
        wait_until(lambda: sum(not wire.is_silent for wire in wires) >= 5, "nobody was refused")
        with client.wire() as late:
            # The number is not exact: each takes a little more memory than its bytes.
            assert_problem(late.ask(client.request(body=event(param="x" * 100_000))), 503)
        assert client.get("/ping").body == b"pong"
        spool.execute("ROLLBACK")
        answers = [wire.answer() for wire in wires]
        taken = {f"hung {number}" for number, answer in enumerate(answers) if answer.status == 200}
        assert 3 <= len(taken) <= 5
        assert all(answer.status in (200, 503) for answer in answers)
        client.documents(sorted(taken))
        assert len(client.stored("log_id LIKE 'hung%'")) == len(taken)
        assert_created(client.post())
