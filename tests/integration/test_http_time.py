"""Clients that are slow or say nothing, over real connections to a server with short time limits."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from testbed.servers.doors import BODY_BYTES_MAX
from testbed.servers.forebay import ForebayServer
from testbed.traffic.requests import LIVE, PING, Client, assert_created, assert_problem, event
from testbed.traffic.wire import TIMEOUT_S, Wire


@pytest.mark.parametrize(
    "beginning", [b"G", b"POST /events HTTP/1.1\r\n", b"POST /events HTTP/1.1\r\nHost: forebay\r\nX"]
)
def test_a_head_that_never_ends_is_answered_with_408(hasty: Client, beginning: bytes) -> None:
    with hasty.wire() as wire:
        answer = wire.ask(beginning)
        assert_problem(answer, 408)
        assert answer.headers["connection"] == "close"
        wire.assert_closed()


def test_a_body_that_never_ends_is_answered_with_408(hasty: Client) -> None:
    with hasty.wire() as wire:
        assert_problem(wire.ask(hasty.request()[:-1]), 408)
        wire.assert_closed()


def test_a_body_that_comes_drop_by_drop_is_answered_with_408(hasty: Client) -> None:
    with hasty.wire() as wire:
        wire.send(hasty.request(body=b"", headers={"Content-Length": "1000"}))
        deadline = time.monotonic() + TIMEOUT_S
        while wire.is_silent:
            assert time.monotonic() < deadline
            wire.send(b" ")
            time.sleep(0.02)
        assert_problem(wire.answer(), 408)


def test_a_refused_head_whose_body_never_ends_ends_at_the_time_limit(hasty: Client) -> None:
    headers = {"Content-Length": None, "Transfer-Encoding": "chunked", "Authorization": None}
    with hasty.wire() as wire:
        wire.send(hasty.request(body=b"", headers=headers))
        began_at = time.monotonic()
        while wire.is_silent:
            assert time.monotonic() - began_at < TIMEOUT_S
            wire.send_while_open(b"5\r\nabcde\r\n", 1)
            time.sleep(0.02)
        assert time.monotonic() - began_at > 0.4
        # To send it again, as a 408 asks, would be no use.
        assert_problem(wire.answer(), 401)
        wire.assert_closed()


def test_a_body_that_never_ends_behind_an_event_takes_nothing_from_it(hasty: Client) -> None:
    with hasty.wire() as wire:
        wire.send(hasty.request(body=event(log_id="before the open body")) + hasty.request()[:-1])
        assert_created(wire.answer(), "before the open body")
        assert_problem(wire.answer(), 408)
        wire.assert_closed()


def test_a_request_that_never_ends_takes_nothing_from_the_event_before_it(hasty: Client) -> None:
    with hasty.wire() as wire:
        wire.send(hasty.request(body=event(log_id="before the endless one")) + PING[:-2])
        assert_created(wire.answer(), "before the endless one")
        assert_problem(wire.answer(), 408)
        wire.assert_closed()


def test_an_idle_connection_is_closed_without_an_answer(hasty: Client) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(hasty.wire()) for _ in range(4)]
        for wire, request in zip(wires, (PING, hasty.request(), LIVE, hasty.request(body=b"{}")), strict=True):
            wire.ask(request)
        for wire in wires:
            wire.assert_closed()


def test_a_silent_connection_is_closed_without_an_answer(hasty: Client) -> None:
    with hasty.wire() as wire, hasty.wire() as newlines:
        newlines.send(b"\r\n")
        wire.assert_closed()
        newlines.assert_closed()


def test_a_connection_that_has_sent_nothing_yet_is_kept_like_any_idle_one(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"FOREBAY_REQUEST_TIMEOUT_S": "0.5"}) as server:
        server.start()
        client = Client(server)
        with client.wire() as silent, client.wire() as newlines, client.wire() as begun:
            newlines.send(b"\r\n")
            # The others were there before, so that their time would be up too.
            assert_problem(begun.ask(b"G"), 408)
            assert silent.ask(PING).body == newlines.ask(PING).body == b"pong"


def test_a_body_that_comes_after_its_answer_leaves_an_idle_connection(hasty: Client) -> None:
    with hasty.wire() as wire:
        assert_problem(wire.ask(hasty.request("/nothing", b"", {"Content-Length": "1"})), 404)
        wire.send(b"x")
        wire.assert_closed()


def test_a_body_that_never_comes_after_its_answer_gets_no_second_one(hasty: Client) -> None:
    for path, status in (("/nothing", 404), ("/events", 413)):
        with hasty.wire() as wire:
            length = str(BODY_BYTES_MAX + 1)
            assert_problem(wire.ask(hasty.request(path, b"", {"Content-Length": length})), status)
            wire.assert_closed()


def test_a_client_that_reads_no_answers_does_not_keep_its_connection(hasty: Client) -> None:
    def sockets() -> int:
        return sum(
            link.is_symlink() and str(link.readlink()).startswith("socket:")
            for link in Path(f"/proc/{hasty.server.pid}/fd").iterdir()
        )

    before = sockets()
    with Wire(hasty.server, receive_buffer=4_096) as wire:
        wire.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(1_000):
                wire.send(PING * 1_000)
        deadline = time.monotonic() + TIMEOUT_S
        while sockets() > before:
            assert time.monotonic() < deadline, "its connection is still there"
            time.sleep(0.05)
