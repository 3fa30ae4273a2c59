"""Clients that are slow, silent or gone, many at once over real connections: others are served, and memory has bounds.

The bounds are generous; docs/architecture.md has the memory of a connection as measured.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence

import pytest

from testbed.servers.forebay import ForebayServer
from testbed.servers.process_usage import reach_for_connections, resident_bytes
from testbed.traffic.requests import LIVE, PING, Client, assert_created, assert_problem, event
from testbed.traffic.wire import Wire

IDLE_CONNECTIONS = 10_000
CONNECTION_BYTES_MAX = 32_000
MEMORY_SPARE_BYTES = 30_000_000


@pytest.fixture
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with the default settings."""
    with ForebayServer(tmp_path_factory.mktemp("patient"), {"FOREBAY_BULK_INTERVAL_S": "0.1"}) as server:
        server.start()
        yield Client(server)


def connect(stack: contextlib.ExitStack, client: Client, count: int, first: bytes = b"") -> list[Wire]:
    wires = []
    for _ in range(count):
        wires.append(stack.enter_context(client.wire()))
        if first:
            wires[-1].send(first)
    return wires


def test_10_000_idle_connections_use_little_memory_and_keep_nobody_out(patient: Client) -> None:
    count = reach_for_connections(IDLE_CONNECTIONS)
    before = resident_bytes(patient.server.pid)
    with contextlib.ExitStack() as stack:
        wires = connect(stack, patient, count)
        for wire in wires[: count // 2]:
            assert_created(wire.ask(patient.request("/events?ack=memory")))
        assert_created(patient.post(body=event(log_id="among the idle")))
        taken = resident_bytes(patient.server.pid) - before
        assert taken < count * CONNECTION_BYTES_MAX + MEMORY_SPARE_BYTES
        patient.document("among the idle")
        # The connections that have been silent longest are closed first, if any.
        assert_created(wires[-1].ask(patient.request()))


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"x", id="a head byte by byte"),
        pytest.param(b"x-a: b\r\n", id="a head line by line"),
    ],
)
def test_heads_that_trickle_keep_nobody_out(patient: Client, piece: bytes) -> None:
    before = resident_bytes(patient.server.pid)
    with contextlib.ExitStack() as stack:
        wires = connect(stack, patient, 500, b"POST /events HTTP/1.1\r\nHost: forebay\r\n")
        for _ in range(10):
            for wire in wires:
                wire.send(piece)
            assert_created(patient.post())
        assert resident_bytes(patient.server.pid) - before < 500 * CONNECTION_BYTES_MAX + MEMORY_SPARE_BYTES
        for wire in wires[:3]:
            wire.send((b": y" if piece == b"x" else b"") + b"\r\n\r\n")
            assert_problem(wire.answer(), 401)


def test_bodies_that_trickle_keep_nobody_out(patient: Client) -> None:
    before = resident_bytes(patient.server.pid)
    body = event(log_id="trickled", param="x" * 1_000)
    request = patient.request(body=body)
    with contextlib.ExitStack() as stack:
        wires = connect(stack, patient, 500, request[:-20])
        for end in range(-20, -1):
            for wire in wires:
                wire.send(request[end : end + 1])
            assert_created(patient.post())
        assert resident_bytes(patient.server.pid) - before < 500 * CONNECTION_BYTES_MAX + MEMORY_SPARE_BYTES
        for wire in wires:
            assert_created(wire.ask(request[-1:]), "trickled")


def test_half_closed_connections_are_closed_unless_an_answer_is_due(patient: Client) -> None:
    with contextlib.ExitStack() as stack:
        for beginning in (b"", PING[:-2], patient.request()[:-1]):
            for wire in connect(stack, patient, 20, beginning):
                wire.socket.shutdown(socket.SHUT_WR)
                wire.assert_closed()
        for wire in connect(stack, patient, 20, LIVE + patient.request() + PING):
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.answer().json == {"status": "alive"}
            assert_created(wire.answer())
            assert wire.answer().body == b"pong"
            wire.assert_closed()


def test_the_requests_of_an_idle_connection_are_freed(patient: Client) -> None:
    body = b"[" + b",".join([event(param="x" * 10_000)] * 190) + b"]"
    with contextlib.ExitStack() as stack:
        wires = connect(stack, patient, 60)
        log_ids = []
        taken = []
        for number, wire in enumerate(wires):
            answer = wire.ask(patient.request("/events/batch", body)).json
            log_ids.append(answer["results"][-1]["log_id"])
            if number in (9, 59):
                patient.documents(log_ids)
                taken.append(resident_bytes(patient.server.pid))
        # 50 more of them sent 100 MB, all of which is delivered.
        assert taken[1] - taken[0] < 60_000_000


def test_while_a_client_sends_thousands_of_requests_at_once_others_get_their_turn(patient: Client) -> None:
    finished = threading.Event()

    def flood(wire: Wire, requests: int) -> None:
        wire.send(PING * requests)

    def read(wire: Wire, requests: int) -> None:
        wire.skim(b"\r\n\r\npong", requests)
        finished.set()

    requests = 60_000
    with patient.wire() as greedy, patient.wire() as modest:
        threads = [threading.Thread(target=part, args=(greedy, requests)) for part in (flood, read)]
        for thread in threads:
            thread.start()
        served = 0
        while not finished.is_set():
            assert modest.ask(PING).body == b"pong"
            served += 1
        for thread in threads:
            thread.join()
    # Read as it comes, in pieces of 256 KiB, the flood would leave it about one turn in four thousand requests.
    assert served > requests / 1_000, "it had to wait for the other's requests"


def test_answers_that_nobody_reads_stop_the_requests_and_not_the_server(patient: Client) -> None:
    before = resident_bytes(patient.server.pid)
    with contextlib.ExitStack() as stack:
        for request in _floods(patient):
            wire = stack.enter_context(Wire(patient.server, receive_buffer=4_096))
            assert _send_until_stuck(wire, request), "everything was read, though no answer was"
            assert_created(patient.post())
        assert resident_bytes(patient.server.pid) - before < MEMORY_SPARE_BYTES


def _send_until_stuck(wire: Wire, request: bytes) -> bool:
    """Send far more than the buffers of both ends hold, or until nobody takes it."""
    wire.socket.settimeout(1.0)
    with contextlib.suppress(TimeoutError):
        for _ in range(40_000_000 // len(request) // 1_000):
            wire.send(request * 1_000)
        return False
    return True


def _floods(client: Client) -> Sequence[bytes]:
    return (PING, LIVE, client.request(body=b"{}"), client.request(headers={"Authorization": None}))
