"""Commands at work beside a real server, with a real OpenSearch behind it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import COMMAND, ForebayServer
from testbed.servers.opensearch_admin import Template
from testbed.servers.ports import free_ports

WAIT_S = 30.0
NUMBERS = {
    "dynamic": False,
    "properties": {
        "@timestamp": {"type": "date"},
        "received_at": {"type": "date"},
        "log_id": {"type": "keyword"},
        "event_info": {"properties": {"param": {"properties": {"key": {"type": "integer"}}}}},
    },
}
"""A mapping in which a key must be a number: an event with a text there dies."""


class Beside:
    """Runs commands in the folder and with the settings of a server."""

    def __init__(self, server: ForebayServer) -> None:
        self.server = server

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND[0], *arguments],
            cwd=self.server.folder,
            env={"PATH": os.environ["PATH"], **self.server.settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def read(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the JSON lines of a command that succeeds."""
        done = self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait(self, count: int, *arguments: str) -> list[dict[str, Any]]:
        """Return the JSON lines of a command once there are so many."""
        deadline = time.monotonic() + WAIT_S
        while len(lines := self.read(*arguments)) != count:
            assert time.monotonic() < deadline, (lines, self.server.log)
            time.sleep(0.05)
        return lines

    def wait_dead(self, count: int, *arguments: str) -> list[dict[str, Any]]:
        """Return dead letters once there are so many; good events come meanwhile, as evidence."""
        deadline = time.monotonic() + WAIT_S
        while len(lines := self.read("dead", "list", *arguments)) != count:
            assert time.monotonic() < deadline, (lines, self.server.log)
            self.send(str(uuid.uuid4()), {"key": 1})
            time.sleep(0.2)
        return lines

    def send(self, log_id: str, param: object) -> None:
        """Send an event that is accepted."""
        body = json.dumps({"log_id": log_id, "page": "/home", "event": "click", "param": param}).encode()
        request = urllib.request.Request(  # noqa: S310 - the server under test
            f"{self.server.url}/events",
            body,
            {"Authorization": f"Bearer {self.server.token()}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - the same
            assert response.status == 200


@pytest.fixture
def beside(tmp_path: Path, opensearch: OpenSearchAddress) -> Iterator[Beside]:
    settings = {
        "OPEN_SEARCH_DNS": opensearch.url,
        "SERVER_ENVIRONMENT": f"commands{uuid.uuid4().hex[:12]}",
        "FOREBAY_BULK_INTERVAL_S": "0.1",
        "FOREBAY_RETRY_INTERVAL_S": "1",
    }
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        yield Beside(server)


@pytest.fixture
async def choosy(beside: Beside) -> AsyncIterator[Beside]:
    """Commands beside a server whose index takes only numbers for a key."""
    environment, url = beside.server.settings["SERVER_ENVIRONMENT"], beside.server.settings["OPEN_SEARCH_DNS"]
    async with Template(url, environment, {"mappings": NUMBERS}):
        yield beside


def test_dead_letter_is_found_corrected_and_delivered_under_its_own_id(choosy: Beside) -> None:
    beside = choosy
    beside.send("no number", {"key": "seven", "more": 1.50})
    (letter,) = beside.wait_dead(1, "--reason", "EVENT_INFO.PARAM.KEY", "--newer-than", "1h")
    assert letter["log_id"] == "no number"
    assert len(letter["attempted_at"]) == letter["attempts"] >= 2

    shown = beside.run("dead", "show", "no number", "--raw").stdout
    assert json.loads(shown.splitlines()[1]) == letter["document"]
    refused = beside.run("dead", "edit", "no number", "--set", 'param="short"', "--replay")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "forebay: event_info.param: must be a JSON object\n"
    corrected = beside.run("dead", "edit", "no number", "--set", "param.key=7", "--replay")
    assert (corrected.returncode, corrected.stderr) == (0, "")

    (event,) = beside.wait(1, "events", "search", "param.key=7")
    assert event == letter["document"] | {
        "event_info": letter["document"]["event_info"] | {"param": {"key": 7, "more": 1.50}}
    }
    assert beside.read("dead", "list") == []
    beside.wait(0, "pending", "list")


def test_chosen_letters_are_purged_and_the_others_stay(choosy: Beside) -> None:
    beside = choosy
    for log_id in ("a", "b", "c"):
        beside.send(log_id, {"key": "seven"})
    letters = beside.wait_dead(3)

    assert beside.run("dead", "purge", "--yes", "--older-than", "1h", "--index", letters[0]["index"]).stdout == (
        "0 dead letters deleted\n"
    )
    assert beside.run("dead", "purge", "--yes", "a", "b", "--type", letters[0]["error_type"]).stdout == (
        "2 dead letters deleted\n"
    )
    assert [letter["log_id"] for letter in beside.read("dead", "list")] == ["c"]


def test_doctor_finds_a_server_and_its_opensearch_well_and_says_when_they_are_not(beside: Beside) -> None:
    beside.send("a", {"key": "value"})
    beside.wait(1, "events", "search", "log_id=a")
    done = beside.run("doctor", "--json")
    found = {line["what"]: line for line in map(json.loads, done.stdout.splitlines())}

    # The disk of the machine and the indices of other tests may give warnings of their own.
    wrong = {what for what, line in found.items() if line["level"] != "ok"}
    assert wrong <= {"cluster", "disks", "spool room", "clients"}
    assert done.stderr == ""
    assert "has the template's mapping" in found["mapping"]["finding"]
    assert found["server"]["finding"] == f"takes events at {beside.server.url}"
    lines = [json.loads(line)["finding"] for line in done.stdout.splitlines()]
    assert f"open by pid {beside.server.pid}" in lines
    assert "the server's agrees with ours" in lines
    assert beside.server.settings["JWT_SECRET"] not in done.stdout

    beside.server.kill()
    lines = beside.run("doctor").stdout.splitlines()
    assert (
        "warn  spool spool.db  no server has it open → start the server if none runs; its events wait and are safe"
        in lines
    )
    assert any(line.startswith("warn  server  no server answers at ") for line in lines)


def test_doctor_tells_why_a_server_is_degraded(beside: Beside) -> None:
    beside.server.stop()
    beside.server.settings["OPEN_SEARCH_DNS"] = "http://admin:hunter2@127.0.0.1:1"
    beside.server.start()
    beside.send("a", {})
    deadline = time.monotonic() + WAIT_S
    while "degraded: the sink is " not in (text := beside.run("doctor").stdout):
        assert time.monotonic() < deadline, text

    assert "warn  server  degraded: the sink is failed" in text
    assert "fail  opensearch http://127.0.0.1:1  " in text
    assert "hunter2" not in text


def test_events_without_a_sink_are_buried_and_replayed_once_there_is_one(tmp_path: Path) -> None:
    settings = {
        "OPEN_SEARCH_DNS": f"http://127.0.0.1:{free_ports(1)[0]}",
        "SERVER_ENVIRONMENT": "burial",
        "FOREBAY_BULK_INTERVAL_S": "0.1",
        "FOREBAY_BULK_EVENTS_MAX": "10",
        "FOREBAY_RETRY_INTERVAL_S": "1",
        "FOREBAY_RETRY_DELAY_S_MAX": "1",
    }
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        beside = Beside(server)
        log_ids = {f"e{number}" for number in range(35)}
        for log_id in sorted(log_ids):
            beside.send(log_id, {"key": log_id})
        assert {event["refused_status"] for event in beside.wait(35, "pending", "list", "-n", "100")} == {None}

        one = beside.run("pending", "bury", "e7", "--yes")
        assert (one.returncode, one.stderr) == (0, "")
        (letter,) = beside.wait(1, "dead", "list", "-n", "100")
        assert (letter["log_id"], letter["error_type"], letter["reason"]) == ("e7", "buried", "by an operator")
        beside.wait(34, "pending", "list", "-n", "100")

        assert beside.run("pending", "bury", "--all", "--yes").returncode == 0
        assert {letter["log_id"] for letter in beside.wait(35, "dead", "list", "-n", "100")} == log_ids
        assert beside.read("pending", "list") == []
        server.stop()

        del server.settings["OPEN_SEARCH_DNS"]
        server.start()
        assert beside.run("dead", "replay", "--type", "buried").returncode == 0
        events = beside.wait(35, "events", "search", "-n", "100")
        assert {event["event_info"]["param"]["key"] for event in events} == log_ids
        assert beside.wait(0, "dead", "list") == []
