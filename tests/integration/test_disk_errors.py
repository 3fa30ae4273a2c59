"""The real server on a disk that fails in a commit: a 503 is true, and if none can be true there is no answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.servers.ports import HOST, free_ports
from testbed.servers.shaky_forebay import ShakyForebay
from testbed.traffic.requests import PING, Client
from testbed.traffic.wire import Wire
from unit.pipeline.fakes import read_rows


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ShakyForebay]:
    """Run a server whose sink is away, so that all events stay in its spool."""
    with ShakyForebay(tmp_path, {"OPEN_SEARCH_DNS": f"http://{HOST}:{free_ports(1)[0]}"}) as server:
        server.start()
        yield server


def event(server: ShakyForebay, log_id: str) -> bytes:
    return Client(server).request(body=b'{"page":"/p","event":"e","log_id":"%b"}' % log_id.encode())


def post(server: ShakyForebay, log_id: str) -> int:
    with Wire(server) as wire:
        return wire.ask(event(server, log_id)).status


def count_events(folder: Path) -> int:
    return sum(events for (events,) in read_rows(folder / "spool.db", "SELECT events FROM groups"))


def count_moved_away(folder: Path) -> int:
    return len([*folder.glob("spool.db.moved-*"), *folder.glob("spool.db.damaged")])


def test_events_that_were_refused_for_a_failed_sync_are_not_there_after_a_kill(
    server: ShakyForebay, tmp_path: Path
) -> None:
    assert post(server, "before") == 200
    for number in range(5):
        server.fail("sync log once")
        assert post(server, f"refused-{number}") == 503
    assert post(server, "after") == 200
    server.fail("sync log once")
    assert post(server, "refused-last") == 503
    server.kill()
    server.heal()

    server.start()
    server.kill()

    assert count_events(tmp_path) == 2
    assert count_moved_away(tmp_path) == 0
    assert "spool_damaged" not in server.log


def test_a_commit_in_doubt_is_answered_by_nothing_and_ends_the_server(server: ShakyForebay, tmp_path: Path) -> None:
    assert post(server, "before") == 200
    with Wire(server) as wire:
        server.fail("sync log", "truncate log")
        wire.send(PING + event(server, "doubtful") + PING)

        assert wire.answer().body == b"pong"
        wire.assert_closed()
    assert server.wait() == 1
    assert "commit_in_doubt" in server.log

    server.heal()
    server.start()
    assert not (tmp_path / "spool.db.doubt").exists()
    assert post(server, "doubtful") == 200
    assert post(server, "later") == 200
    assert server.stop() == 0
    # The one in doubt may be there twice, under one `_id`: OpenSearch takes it once.
    assert 3 <= count_events(tmp_path) <= 4
    assert count_moved_away(tmp_path) == 0
