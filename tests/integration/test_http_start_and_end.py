"""The real server starts, or names the reason if it cannot, and ends."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from testbed.servers.forebay import ForebayServer, ForebayStartError
from testbed.servers.ports import HOST, free_ports
from testbed.traffic.requests import PING, Client, assert_created, assert_problem, event


def failure_to_start(folder: Path, settings: Mapping[str, str] | None = None) -> tuple[int | None, str]:
    """Return the exit code of a server that cannot start, and its one message."""
    with ForebayServer(folder, settings) as server:
        with pytest.raises(ForebayStartError) as raised:
            server.start()
        assert server.output == ""
        return raised.value.exit_code, server.log


def test_a_port_in_use_is_reported_on_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, free_ports(1)[0]))
        port = taken.getsockname()[1]
        code, said = failure_to_start(tmp_path, {"SERVER_PORT": str(port)})
    assert code == 2
    assert said == f"forebay: SERVER_PORT: cannot listen on {HOST} port {port}: Address already in use\n"


def test_a_database_of_another_server_is_reported_on_one_line(client: Client, tmp_path: Path) -> None:
    database = client.server.settings["DATABASE_URL"]
    code, said = failure_to_start(tmp_path, {"DATABASE_URL": database})
    assert code == 1
    assert said.startswith("forebay: DATABASE_URL: ")
    assert f"belongs to another process (pid {client.server.pid})" in said
    assert said.count("\n") == 1
    assert_created(client.post())


def test_a_database_of_another_program_is_reported_on_one_line_and_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "spool.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE accounts (id)")
    content = database.read_bytes()
    code, said = failure_to_start(tmp_path)
    assert code == 1
    assert said == f"forebay: DATABASE_URL: {database} is a database of another program; it was left untouched\n"
    assert database.read_bytes() == content


def test_a_file_that_is_no_database_is_reported_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"these are no pages of SQLite " * 500)
    code, said = failure_to_start(tmp_path)
    assert code == 1
    assert said == f"forebay: DATABASE_URL: {tmp_path}/spool.db cannot be opened: file is not a database\n"


def test_every_wrong_setting_is_reported_on_a_line_of_its_own(tmp_path: Path) -> None:
    code, said = failure_to_start(
        tmp_path,
        {"FOREBAY_ACK": "tape", "OPEN_SEARCH_DNS": "https://admin:hunter2@x:y", "FOREBAY_BULK_WORKERS": "0"},
    )
    assert code == 2
    assert "hunter2" not in said
    assert [line.split(" is not allowed")[0] for line in said.splitlines()] == [
        "forebay: OPEN_SEARCH_DNS: the value",
        "forebay: FOREBAY_ACK: 'tape'",
        "forebay: FOREBAY_BULK_WORKERS: '0'",
    ]


def test_a_host_that_cannot_be_found_is_reported_on_one_line(tmp_path: Path) -> None:
    code, said = failure_to_start(tmp_path, {"FOREBAY_HOST": "ü" * 70})
    assert code == 2
    assert said.startswith("forebay: FOREBAY_HOST: cannot listen on ")
    assert said.count("\n") == 1


def test_a_server_without_a_secret_does_not_start_outside_a_local_environment(tmp_path: Path) -> None:
    code, said = failure_to_start(tmp_path, {"JWT_SECRET": "", "SERVER_ENVIRONMENT": "production"})
    assert code == 2
    assert said == "forebay: JWT_SECRET: not set; it may be left out only with SERVER_ENVIRONMENT=local\n"


def test_a_newcomer_is_shown_a_request_that_works(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"JWT_SECRET": "", "FOREBAY_BULK_INTERVAL_S": "0.1"}) as server:
        server.start()
        assert f"http://localhost:{server.port}/events" in server.output
        token = server.output.partition("Authorization: Bearer ")[2].partition("'")[0]
        client = Client(server, f"Bearer {token}")
        assert client.document(assert_created(client.post()))["user_id"] == "newcomer"
        assert token not in server.log
        assert (tmp_path / "spool.db.secret").read_text() not in server.log + server.output
        # The secret that was made is the same after a new start.
        assert server.stop() == 0
        server.start()
        assert_created(client.post())


@pytest.mark.filterwarnings("ignore:The HMAC key is 5 bytes long")
def test_settings_come_from_the_env_file_too_and_unknown_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FOREBAY_REQUIRE_LOG_ID=true\n")
    with ForebayServer(tmp_path, {"FOREBAY_ACKS": "disk", "JWT_SECRET": "short"}) as server:
        server.start()
        assert_problem(Client(server).post(), 400, "log_id")
        entries = [json.loads(line) for line in server.log.splitlines()]
    warnings = {entry["event"]: entry for entry in entries if entry["level"] == "warning"}
    assert warnings["unknown_setting"]["name"] == "FOREBAY_ACKS"
    assert warnings["unknown_setting"]["meant"] == "FOREBAY_ACK"
    assert warnings["short_secret"]["name"] == "JWT_SECRET"


def test_a_server_that_is_told_to_end_answers_and_delivers_first(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"FOREBAY_BULK_INTERVAL_S": "60"}) as server:
        server.start()
        client = Client(server)
        with client.wire() as idle, client.wire() as wire:
            assert idle.ask(PING).body == b"pong"
            for number in range(20):
                wire.send(client.request(body=event(log_id=f"at the end {number}")))
            for number in range(20):
                assert_created(wire.answer(), f"at the end {number}")
            assert server.stop() == 0
            idle.assert_closed()
            wire.assert_closed()
        client.documents([f"at the end {number}" for number in range(20)])
        with pytest.raises(ConnectionRefusedError):
            client.wire()


def test_an_event_that_was_answered_outlives_the_server_that_is_killed(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"FOREBAY_BULK_INTERVAL_S": "60"}) as server:
        server.start()
        client = Client(server)
        log_ids = [f"survivor {number}" for number in range(20)]
        for log_id in log_ids:
            assert_created(client.post(body=event(log_id=log_id)), log_id)
        server.kill()
        server.start()
        assert server.stop() == 0
        client.documents(log_ids)
