"""The layer under SQLite is in use, fails the steps that it is told to, and is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.servers.faulty_vfs import Fault, NotInUse, Operation, Policy, faulty_files


class OneFault(Policy):
    """Fails one kind of step of the log, once told how; counts the steps that were done."""

    def __init__(self) -> None:
        self.operation: Operation | None = None
        self.fault = Fault(sqlite3.SQLITE_IOERR)
        self.done: list[str] = []

    def decide(self, operation: Operation, path: str, offset: int, length: int) -> Fault | None:
        del offset, length
        return self.fault if operation is self.operation and path.endswith("-wal") else None

    def written(self, path: str, offset: int, data: bytes) -> None:
        del offset, data
        self.done.append(f"write {Path(path).name}")

    def synced(self, path: str) -> None:
        self.done.append(f"sync {Path(path).name}")

    def truncated(self, path: str, size: int) -> None:
        self.done.append(f"truncate {Path(path).name} {size}")

    def deleted(self, path: str) -> None:
        self.done.append(f"delete {Path(path).name}")


@pytest.fixture
def policy() -> Iterator[OneFault]:
    policy = OneFault()
    with faulty_files(policy):
        yield policy


@pytest.fixture
def connection(policy: OneFault, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE numbers (number)")
        policy.done.clear()
        yield connection


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (Operation.SYNC, sqlite3.SQLITE_IOERR_FSYNC),
        (Operation.WRITE, sqlite3.SQLITE_IOERR_WRITE),
        (Operation.WRITE, sqlite3.SQLITE_FULL),
    ],
)
def test_a_commit_fails_with_the_error_of_the_step_and_goes_through_when_the_step_works_again(
    policy: OneFault, connection: sqlite3.Connection, operation: Operation, code: int
) -> None:
    policy.operation, policy.fault = operation, Fault(code)
    with pytest.raises(sqlite3.OperationalError) as failed:
        connection.execute("INSERT INTO numbers VALUES (1)")
    assert failed.value.sqlite_errorcode == code
    policy.operation = None
    connection.execute("INSERT INTO numbers VALUES (2)")
    assert connection.execute("SELECT * FROM numbers").fetchall() == [(2,)]


def test_every_step_is_told_of_once_it_was_done(policy: OneFault, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO numbers VALUES (1)")
    assert policy.done == ["write a.db-wal", "write a.db-wal", "sync a.db-wal"]
    policy.done.clear()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert policy.done[0] == "sync a.db-wal"
    assert policy.done[-2:] == ["sync a.db", "truncate a.db-wal 0"]
    connection.close()
    assert policy.done[-1] == "delete a.db-wal"


def test_a_truncation_fails_when_it_is_told_to(policy: OneFault, connection: sqlite3.Connection) -> None:
    policy.operation, policy.fault = Operation.TRUNCATE, Fault(sqlite3.SQLITE_IOERR_TRUNCATE)
    with pytest.raises(sqlite3.OperationalError) as failed:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert failed.value.sqlite_errorcode == sqlite3.SQLITE_IOERR_TRUNCATE


def test_a_write_that_fails_in_the_middle_leaves_its_beginning(
    policy: OneFault, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    size = (tmp_path / "a.db-wal").stat().st_size
    policy.operation, policy.fault = Operation.WRITE, Fault(sqlite3.SQLITE_FULL, written_bytes=7)
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("INSERT INTO numbers VALUES (1)")
    assert (tmp_path / "a.db-wal").stat().st_size == size + 7


def test_python_meets_the_faults_that_sqlite_meets(
    policy: OneFault, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    del connection
    with (tmp_path / "a.db-wal").open("r+b") as log:
        os.fsync(log)
        os.pwrite(log.fileno(), b"", 0)
        policy.operation = Operation.SYNC
        with pytest.raises(OSError, match="Input/output error"):
            os.fsync(log.fileno())
        policy.operation = Operation.WRITE
        with pytest.raises(OSError, match="Input/output error"):
            os.pwrite(log.fileno(), b"1", 0)


def test_nothing_is_asked_about_afterwards(tmp_path: Path) -> None:
    policy, fsync = OneFault(), os.fsync
    with faulty_files(policy):
        assert os.fsync is not fsync
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE numbers (number)")
    assert os.fsync is fsync
    assert not policy.done


def test_an_error_of_the_policy_is_raised_in_the_end(tmp_path: Path) -> None:
    class Broken(Policy):
        def decide(self, *_: object) -> Fault | None:
            raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        faulty_files(Broken()),
        contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection,
        contextlib.suppress(sqlite3.OperationalError),
    ):
        connection.execute("CREATE TABLE numbers (number)")


def test_it_refuses_to_be_used_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda _: None)
    with pytest.raises(NotInUse), faulty_files(Policy()):
        pass
