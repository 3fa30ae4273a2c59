"""Revoked tokens are refused by every worker, soon and after a restart; a list that is damaged lets nobody in again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jwt
import pytest

from testbed.servers.forebay import COMMAND, ForebayServer, ForebayStartError
from testbed.servers.observing import WAIT_S, log_lines, read_metrics, start_all
from testbed.traffic.requests import EVENT, Client, assert_created, assert_problem
from testbed.traffic.wire import Answer, Wire

WORKERS = 2
SETTINGS = {"FOREBAY_WORKERS": str(WORKERS), "FOREBAY_METRICS_OPEN": "true"}
IN_FORCE_S = 2.0
"""The promise. A busy machine may stand still for longer, so one of a few changes has to keep it."""

TRIES = 3
CONNECTIONS_MAX = 200
ACCEPTED = 'forebay_events_accepted_total{{worker="{}"}}'
REFUSED = 'forebay_requests_total{{status="401",worker="{}"}}'


def run(server: ForebayServer, *arguments: str, given: str = "") -> str:
    """Run a command with the settings of a server; return its output."""
    done = subprocess.run(
        [COMMAND[0], *arguments],
        cwd=server.folder,
        env={"PATH": os.environ["PATH"], **server.settings},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def change(server: ForebayServer, *arguments: str, given: str = "") -> tuple[str, float]:
    """Run a command that changes the list; return its output, and the seconds until every worker has read the list."""
    read = len(log_lines(server, "denials_read"))
    shown = run(server, *arguments, given=given)
    changed_at = time.monotonic()
    wait_lines(server, "denials_read", read + WORKERS)
    return shown, time.monotonic() - changed_at


def wait_lines(server: ForebayServer, event: str, number: int) -> None:
    """Wait until the log has so many lines about one thing."""
    deadline = time.monotonic() + WAIT_S
    while len(log_lines(server, event)) < number:
        assert time.monotonic() < deadline, f"{event}: {len(log_lines(server, event))} lines, not {number}"
        time.sleep(0.01)


def is_in_every_worker(server: ForebayServer, name: str) -> bool:
    """Return whether every worker has counted something; `{}` in the name stands for its number."""
    samples = read_metrics(server)
    return all(samples.get(name.format(number)) for number in range(1, WORKERS + 1))


class Connections:
    """Connections to every worker of a server, on which a client sends one event after the other.

    With `same_head` the server need not read the head again.
    """

    def __init__(self, client: Client, stack: ExitStack, *, same_head: bool) -> None:
        self._client = client
        self._same_head = same_head
        self._requests = 0
        self.wires: list[Wire] = []
        # Whichever is free takes a connection, and it may happen that one takes many of them.
        while not is_in_every_worker(client.server, ACCEPTED) or len(self.wires) < 2 * WORKERS:
            assert len(self.wires) < CONNECTIONS_MAX
            self.wires.append(stack.enter_context(client.wire()))
            self.ask(200)

    def ask(self, status: int) -> None:
        """Send an event on each connection, and check the answers."""
        assert {answer.status for answer in self.send()} == {status}

    def send(self) -> list[Answer]:
        return [wire.ask(self._make_request()) for wire in self.wires]

    def _make_request(self) -> bytes:
        self._requests += not self._same_head
        return self._client.request(headers={"X-Request-Id": str(self._requests)})


FORMATS = {
    "event": ("/events", "application/json", EVENT),
    "batch": ("/events/batch", "application/json", b"[%b]" % EVENT),
    "lines": ("/events/batch", "application/x-ndjson", EVENT),
    "text beacon": ("/events", "text/plain", EVENT),
    "form beacon": ("/events", "application/x-www-form-urlencoded", b"data=%b" % EVENT),
    "batch in a text beacon": ("/events/batch", "text/plain", b"[%b]" % EVENT),
}


def send_in_each_format(client: Client, device: str) -> dict[str, int]:
    """Send an event in each format from a device; return the statuses of the answers."""
    return {
        name: client.post(path, body, Content_Type=content_type, Device_Uuid=device).status
        for name, (path, content_type, body) in FORMATS.items()
    }


def send_beacons(client: Client, token: str) -> list[int]:
    """Send beacons with a token in the address and in their bodies; return the statuses of the answers."""
    in_body = EVENT[:-1] + b',"access_token":"%b"}' % token.encode()
    form = "application/x-www-form-urlencoded"
    return [
        client.post(path, body, Content_Type=content_type, Authorization=None).status
        for path, body, content_type in (
            (f"/events?access_token={token}", EVENT, "text/plain"),
            ("/events", in_body, "text/plain"),
            ("/events", b"data=%b" % in_body, form),
            ("/events", b"access_token=%b&data=%b" % (token.encode(), EVENT), form),
        )
    ]


@contextmanager
def connected(client: Client, *, same_head: bool = False) -> Iterator[Connections]:
    with ExitStack() as stack:
        yield Connections(client, stack, same_head=same_head)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForebayServer]:
    with ForebayServer(tmp_path, SETTINGS) as server:
        start_all(server)
        yield server


@pytest.mark.parametrize("same_head", [False, True], ids=["another head each time", "the same head"])
def test_a_token_in_use_is_refused_by_every_worker_and_after_a_restart(
    server: ForebayServer,
    *,
    same_head: bool,
) -> None:
    token = server.token("alice")
    client, other = Client(server, f"Bearer {token}"), Client(server, f"Bearer {server.token('bob')}")
    with connected(client, same_head=same_head) as connections:
        shown, _ = change(server, "token", "revoke", "-", "--reason", "lost", given=token)
        for answer in connections.send():
            assert_problem(answer, 401)
            assert answer.json["detail"] == "the token was revoked"
        assert is_in_every_worker(server, REFUSED)
        assert_created(other.post())
    server.stop()
    start_all(server)
    for _ in range(10):
        assert_problem(client.post(), 401)
        assert_created(other.post())
    change(server, "token", "unrevoke", "-", given=token)
    with connected(client) as connections:
        connections.ask(200)
    shown += run(server, "token", "list") + run(server, "deny", "list", "--json")
    written = server.log + server.output + shown
    assert [part for part in token.split(".")[1:] if part in written] == []


def test_a_change_is_in_force_in_every_worker_within_two_seconds(server: ForebayServer) -> None:
    client = Client(server, f"Bearer {server.token('alice')}")
    took_s = []
    with connected(client) as connections:
        for _ in range(TRIES):
            took_s.append(change(server, "token", "revoke", "--sub", "alice")[1])
            connections.ask(401)
            took_s.append(change(server, "token", "unrevoke", "--sub", "alice")[1])
            connections.ask(200)
    assert min(took_s) <= IN_FORCE_S


@pytest.mark.parametrize("by", ["jti", "digest", "sub"])
def test_a_token_is_revoked_by_each_of_its_names(server: ForebayServer, by: str) -> None:
    jti = "7d9f4a4e-1f0a-4c55-8f5b-2f5a5b1d8f6e"
    claims = {"sub": "alice", "exp": int(time.time()) + 3_600, "jti": jti}
    secret = server.settings["JWT_SECRET"]
    named, other = (jwt.encode(claims | more, secret, "HS256") for more in ({}, {"sub": "bob", "jti": "another"}))
    revoked, taken = (Client(server, f"Bearer {token}") for token in (named, other))
    for client in (revoked, taken):
        assert_created(client.post(X_Request_Id="a"))
    names = {"jti": [jti], "digest": [named], "sub": ["--sub", "alice"]}
    change(server, "token", "revoke", *names[by])
    for _ in range(5):
        assert_problem(revoked.post(X_Request_Id="b"), 401)
        assert_created(taken.post())


def test_a_token_that_comes_in_an_address_or_a_body_is_revoked_too(server: ForebayServer) -> None:
    token = server.token("alice")
    client = Client(server)
    assert send_beacons(client, token) == [200] * 4
    change(server, "token", "revoke", token)
    assert send_beacons(client, token) == [401] * 4
    assert send_beacons(client, server.token("bob")) == [200] * 4


@pytest.mark.parametrize("kind", ["device", "address"])
def test_a_device_or_an_address_that_is_shut_out_is_refused_in_all_formats(server: ForebayServer, kind: str) -> None:
    client = Client(server)
    shut_out = {"device": "phone", "address": "127.0.0.0/30"}[kind]
    assert send_in_each_format(client, "phone") == dict.fromkeys(FORMATS, 200)
    with connected(Client(server), same_head=True) as connections:
        change(server, "deny", kind, shut_out)
        connections.ask(403 if kind == "address" else 200)
    assert send_in_each_format(client, "phone") == dict.fromkeys(FORMATS, 403)
    assert send_in_each_format(client, "tablet") == dict.fromkeys(FORMATS, 200 if kind == "device" else 403)
    change(server, "deny", "remove", kind, shut_out)
    assert send_in_each_format(client, "phone") == dict.fromkeys(FORMATS, 200)


def test_a_list_that_is_damaged_or_gone_lets_nobody_in_again(server: ForebayServer) -> None:
    client = Client(server, f"Bearer {server.token('alice')}")
    change(server, "token", "revoke", "--sub", "alice")
    denials = server.folder / "spool.db.denials"
    denials.write_bytes(b"damaged")
    wait_lines(server, "denials_unreadable", WORKERS)
    denials.unlink()
    wait_lines(server, "denials_unreadable", 2 * WORKERS)
    for _ in range(5):
        assert_problem(client.post(), 401)
    told = log_lines(server, "denials_unreadable")
    assert sorted(line["worker"] for line in told) == [1, 1, 2, 2]
    samples = read_metrics(server)
    assert all(samples[f'forebay_denial_failures_total{{worker="{number}"}}'] for number in (1, 2))
    assert samples["forebay_denials"] == 1


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_a_damaged_list_keeps_the_server_from_starting(tmp_path: Path, workers: int) -> None:
    (tmp_path / "spool.db.denials").write_bytes(b"damaged")
    with ForebayServer(tmp_path, {"FOREBAY_WORKERS": str(workers)}) as server:
        with pytest.raises(ForebayStartError) as raised:
            server.start()
        assert raised.value.exit_code == 2
        assert f"{tmp_path}/spool.db.denials beside it cannot be read: line 1 is no entry of it" in server.log
        if workers == 1:
            assert server.log.count("\n") == 1
