"""The doctor runs every check, prints one line each, and its exit code shows whether something has failed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from forebay.clock import now_ms
from forebay.doctor import checks, runner, spool, spool_file, spool_state
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from testbed.servers.ports import free_ports
from unit.cli.running import Folder, Result, Run, make_entry, make_letter

DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a port that nobody listens on, and let nothing be watched for long."""
    monkeypatch.setenv("SERVER_PORT", str(free_ports(1)[0]))
    monkeypatch.setattr(spool, "WATCH_S", 0.01)


@pytest.fixture
def hang() -> Iterator[Callable[..., None]]:
    """Return a function that returns when the test is over."""
    over = threading.Event()

    def wait(*_: object) -> None:
        over.wait()

    yield wait
    over.set()


def found(result: Result) -> dict[str, list[str]]:
    """Return `level finding` by the subject."""
    lines: dict[str, list[str]] = {}
    for finding in result.json_lines():
        assert list(finding) == ["level", "what", "finding", "advice"]
        lines.setdefault(finding["what"], []).append(f"{finding['level']} {finding['finding']}")
    return lines


def test_empty_folder_is_looked_at_and_left_as_it_is(run: Run, folder: Folder) -> None:
    result = run("doctor")

    assert (result.code, result.err) == (0, "")
    assert "warn  spool sqlite3.db  there is no database at sqlite3.db → start the server" in result.out
    assert "ok    store sqlite3-events.db  no event has been delivered yet\n" in result.out
    assert list(folder.path.iterdir()) == []


def test_everything_that_is_there_has_its_lines(run: Run, folder: Folder) -> None:
    folder.spool(Transaction(inserts=[NewGroup(1, [make_entry("a")])], dead=[make_letter("x")]))
    folder.spool_path.with_name("sqlite3.db.moved-1").touch()
    Folder(folder.path, "sqlite3.2.db").spool(Transaction(inserts=[NewGroup(1, [make_entry("b")])]))
    folder.deliver(make_entry("c"))

    result = run("doctor", "--json")
    lines = found(result)

    assert result.code == 0
    assert lines["spool sqlite3.db"] == [
        "warn no server has it open",
        "ok 1 events are not settled, the oldest for 0 s",
        "warn 1 dead letters: 1 mapper_parsing_exception",
        "warn 1 files were moved away: sqlite3.db.moved-1",
    ]
    assert lines["spool sqlite3.2.db"][0] == "warn an orphan, with 1 events and 0 dead letters"
    assert lines["file sqlite3.db"] == lines["file sqlite3.2.db"] == ["ok whole"]
    assert lines["store sqlite3-events.db"][0].startswith("ok 1 events in 1 months, ")
    assert lines["months"] == [
        "ok 1, from 2026-11 to 2026-11; late events open earlier ones too, back to 2024-01 (FOREBAY_OLDEST_MONTH)"
    ]
    assert len(lines["spool room"]) == 2
    assert {"settings", "server", "clock"} < set(lines)


def test_spool_that_nothing_leaves_is_a_failure(run: Run, folder: Folder) -> None:
    folder.spool(Transaction(inserts=[NewGroup(1, [make_entry("a")])]))
    folder.ask_spool("UPDATE groups SET received_at_ms = 1000")
    with contextlib.closing(Spool(folder.spool_path)):
        result = run("doctor", "--json")

    assert result.code == 1
    (pending,) = (line for line in found(result)["spool sqlite3.db"] if "settled" in line)
    assert pending.startswith("fail 1 events are not settled, the oldest for ")
    assert pending.endswith("; nothing moves")


def test_clock_that_was_set_back_is_seen_in_the_spool(run: Run, folder: Folder) -> None:
    folder.spool(Transaction(inserts=[NewGroup(1, [make_entry("a")])]))
    folder.ask_spool(f"UPDATE groups SET received_at_ms = {now_ms() + DAY_MS}")  # noqa: S608 - a number

    (line,) = found(run("doctor", "--json"))["clock"]
    assert line.startswith("warn the newest events in sqlite3.db are 86")


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\x00" + bytes(4080)])
def test_file_that_is_no_spool_hides_no_other_line(run: Run, folder: Folder, content: bytes) -> None:
    folder.spool_path.write_bytes(content)

    result = run("doctor", "--json")
    lines = found(result)

    assert result.code == 1
    assert lines["spool sqlite3.db"][0].startswith("fail ")
    assert set(lines) >= {"settings", "server", "spool room", "store sqlite3-events.db", "clock"}


def test_wrong_settings_are_lines_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_ENVIRONMENT", "production")
    monkeypatch.setenv("OPEN_SEARCH_DNS", "https://admin:hunter2@")

    result = run("doctor")

    assert (result.code, result.err) == (1, "")
    assert result.out.startswith("fail  settings  OPEN_SEARCH_DNS: the value is not allowed")
    assert "hunter2" not in result.out


def test_opensearch_that_is_away_shows_no_credentials(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEN_SEARCH_DNS", "http://admin:hunter2@127.0.0.1:1")

    result = run("doctor")

    assert result.code == 1
    assert "fail  opensearch http://127.0.0.1:1  " in result.out
    assert "hunter2" not in result.out
    assert "admin" not in result.out


def test_check_that_hangs_is_given_up(
    run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch, hang: Callable[..., None]
) -> None:
    folder.spool(Transaction())
    monkeypatch.setattr(spool_state, "read_state", hang)
    monkeypatch.setattr(runner, "CHECK_S_MAX", 3.0)

    result = run("doctor", "--json")
    lines = found(result)

    assert result.code == 1
    assert lines["spool sqlite3.db"] == lines["spool room"] == ["fail no answer within 3 s"]
    assert lines["file sqlite3.db"] == ["ok whole"]


def test_folder_that_hangs_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch, hang: Callable[..., None]) -> None:
    monkeypatch.setattr(checks, "find_spools", hang)
    monkeypatch.setattr(checks, "FIND_S_MAX", 0.05)

    result = run("doctor", "--json")
    assert (result.code, found(result)["spool sqlite3.db"][0]) == (1, "fail its folder does not answer")


def test_short_look_says_that_it_was_one_and_full_looks_to_the_end(
    run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.spool(Transaction(inserts=[NewGroup(number, [make_entry(str(number))]) for number in range(1, 50)]))
    monkeypatch.setattr(spool_file, "SHORT_S_MAX", 0.0)

    assert found(run("doctor", "--json"))["file sqlite3.db"] == [
        "ok no damage found in 0 s, and not all of it was checked"
    ]
    assert found(run("doctor", "--full", "--json"))["file sqlite3.db"] == ["ok whole"]
