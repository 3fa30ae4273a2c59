"""The doctor reports a server's own state, and takes no other program for a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from forebay.doctor import clocks, server
from forebay.doctor.finding import Level
from forebay.doctor.server import Reply, judge_readiness, read_secret
from forebay.settings import Settings
from testbed.servers.ports import HOST, free_ports
from unit.cli.running import Folder
from unit.doctor.contexts import make_context

SECRET = "a secret that is long enough for HS256"


def make_settings(port: int) -> Settings:
    return Settings(SERVER_PORT=port, JWT_SECRET=SECRET, _env_file=None)


def judge(status: int, body: Any) -> list[tuple[Level, str]]:
    reply = Reply(status, body if isinstance(body, bytes) else json.dumps(body).encode(), None)
    return [(finding.level, finding.text) for finding in judge_readiness("http://here", reply)]


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, {"status": "ready"}, [(Level.OK, "takes events at http://here")]),
        (
            200,
            {"status": "degraded", "causes": ["a", "b"]},
            [(Level.WARN, "degraded: a"), (Level.WARN, "degraded: b")],
        ),
        (503, {"status": "unready", "causes": ["a"]}, [(Level.FAIL, "unready: a")]),
        (503, {"status": "unready"}, [(Level.FAIL, "unready, and does not tell us why")]),
        (200, b"<html>", [(Level.FAIL, "another program than Forebay answers at http://here (status 200)")]),
        (404, {"error": 1}, [(Level.FAIL, "another program than Forebay answers at http://here (status 404)")]),
    ],
)
def test_readiness_is_told_with_its_causes(status: int, body: Any, found: list[tuple[Level, str]]) -> None:
    assert judge(status, body) == found


def test_server_that_does_not_answer_is_said() -> None:
    port = free_ports(1)[0]
    (finding,) = server.check(make_context(make_settings(port)))

    assert finding.level is Level.WARN
    assert finding.text == f"no server answers at http://{HOST}:{port}: Connection refused"


def test_port_that_is_not_known_is_said() -> None:
    (finding,) = server.check(make_context(make_settings(0)))
    assert "SERVER_PORT is 0" in finding.text


def test_no_secret_is_made_by_looking(folder: Folder) -> None:
    settings = Settings(_env_file=None)
    assert read_secret(settings) is None
    assert list(folder.path.iterdir()) == []

    settings.secret_path.write_text("the one that was made\n")
    assert read_secret(settings) == "the one that was made"
    settings.secret_path.write_text("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n")
    assert read_secret(settings) is None


class Answering(BaseHTTPRequestHandler):
    """A server whose clock is wrong."""

    def do_GET(self) -> None:
        self.send_response_only(200)
        self.send_header("Date", "Tue, 24 Nov 2020 12:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"pong")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def wrong_clock() -> Iterator[Settings]:
    """Return the settings of a server whose clock is wrong."""
    with HTTPServer((HOST, free_ports(1)[0]), Answering) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield make_settings(http_server.server_port)
        http_server.shutdown()
        thread.join()


def test_clock_of_the_server_is_compared_with_ours(wrong_clock: Settings) -> None:
    (finding,) = clocks.check(make_context(wrong_clock))

    assert finding.level is Level.WARN
    assert "the server's is " in finding.text
    assert finding.text.endswith(" s behind ours")


@pytest.mark.parametrize(
    ("shown_ms", "precision_ms", "said"),
    [
        (10_000, 1, "agrees"),
        (15_100, 1, "agrees"),
        (15_101, 1, "5 s ahead of ours"),
        (20_100, 1, "10 s ahead of ours"),
        (4_999, 1, "agrees"),
        (4_998, 1, "5 s behind ours"),
        (4_000, 1_000, "agrees"),
        (0, 1_000, "9 s behind ours"),
    ],
)
def test_clock_is_wrong_if_the_time_of_asking_does_not_explain_the_difference(
    shown_ms: int, precision_ms: int, said: str
) -> None:
    finding = clocks.judge_clock("it", shown_ms, 10_000, 10_100, precision_ms)

    assert said in finding.text
    assert finding.level is (Level.OK if said == "agrees" else Level.WARN)
    assert ("token" in finding.advice) is (finding.level is Level.WARN)
