"""A spool has one owner, and its lock says how the owner before ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import SpoolUnavailable, SpoolUnusable
from forebay.spool.spool import Spool
from forebay.spool.store import Store
from unit.pipeline.fakes import open_spool, read_rows

NOBODY = 65534
SRC = Path(__file__).parents[3] / "src"

OWN_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool

async def own() -> None:
    spool = Spool(Path(sys.argv[1]))
    spool.start(asyncio.get_running_loop())
    done = asyncio.get_running_loop().create_future()
    spool.commit(Transaction(inserts=[NewGroup(1, [b"action\\nbody\\n"])]), done.set_result)
    await done
    print("owned", flush=True)
    await asyncio.sleep(60)

asyncio.run(own())
"""

OWN_AND_DIE = """
import os, sys
from pathlib import Path
from forebay.spool.spool import Spool

spool = Spool(Path(sys.argv[1]))
os._exit(9)
"""


@pytest.fixture
def other_owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that owns the spool and has committed an event."""
    with subprocess.Popen(
        [sys.executable, "-c", OWN_AND_WAIT, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "owned\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def lock(path: Path) -> Path:
    return path.with_name("spool.db.lock")


def test_the_lock_says_of_an_owner_that_it_is_at_work_and_then_that_it_ended_in_order(path: Path, lock: Path) -> None:
    for _ in range(3):
        with contextlib.closing(Spool(path)):
            assert lock.read_text() == f"pid {os.getpid()}\nopened\n"
        assert lock.read_text() == f"pid {os.getpid()}\nopened\nclosed\n"


def test_of_an_owner_that_was_killed_it_says_nothing(lock: Path, other_owner: subprocess.Popen[str]) -> None:
    other_owner.send_signal(signal.SIGKILL)
    other_owner.wait()
    assert "closed" not in lock.read_text()


def test_of_one_that_is_killed_before_it_has_written_anything_it_says_nothing(path: Path, lock: Path) -> None:
    Spool(path).close()
    subprocess.run(
        [sys.executable, "-c", OWN_AND_DIE, str(path)], check=False, env=os.environ | {"PYTHONPATH": str(SRC)}
    )
    assert lock.read_text().partition("\n")[2] == "opened\n"


def test_a_spool_that_could_not_be_opened_is_closed_in_order_as_before(
    path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spool(path).close()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "read_totals", fail_for_a_full_disk)
        with pytest.raises(SpoolUnusable):
            Spool(path)
    assert lock.read_text().endswith("opened\nclosed\n")
    Spool(path).close()
    assert read_rows(path, "SELECT kind FROM incidents") == []


async def find_damage(path: Path) -> None:
    async with open_spool(path) as spool:
        with pytest.raises(SpoolUnavailable):
            await spool.call(fail_for_damage)


def test_a_spool_that_is_lost_does_not_end_in_order(path: Path, lock: Path) -> None:
    asyncio.run(find_damage(path))
    assert lock.read_text().endswith("opened\n")


def fail_for_damage(_: object) -> None:
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error


def fail_for_a_full_disk(*_: object, **__: object) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


# -- one owner


def test_a_second_owner_is_refused_with_the_number_of_the_first(path: Path) -> None:
    with contextlib.closing(Spool(path)):
        with pytest.raises(SpoolUnusable, match=rf"{path} belongs to another process \(pid {os.getpid()}\)"):
            Spool(path)
        with pytest.raises(SpoolUnusable, match="belongs to another process"):
            Spool(path)
    Spool(path).close()


def test_a_second_owner_is_refused_that_comes_by_another_way(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(path)

    with contextlib.closing(Spool(path)), pytest.raises(SpoolUnusable, match="belongs to another process"):
        Spool(link)


def test_another_process_is_refused_and_named(path: Path, other_owner: subprocess.Popen[str]) -> None:
    with pytest.raises(SpoolUnusable, match=rf"belongs to another process \(pid {other_owner.pid}\)"):
        Spool(path)


async def test_an_owner_that_is_killed_leaves_the_spool_to_the_next_one(
    path: Path, other_owner: subprocess.Popen[str]
) -> None:
    other_owner.send_signal(signal.SIGKILL)
    other_owner.wait()

    async with open_spool(path) as spool:
        (group,) = await spool.load(0, frozenset(), (10, 1000))
        assert group.entries == [b"action\nbody\n"]


def test_a_spool_that_cannot_be_opened_is_not_kept_from_others(path: Path) -> None:
    path.write_bytes(b"no database, but somebody's notes\n" * 100)
    for _ in range(2):
        with pytest.raises(SpoolUnusable, match="not a database"):
            Spool(path)
    path.unlink()

    Spool(path).close()


def test_a_lock_that_was_removed_while_somebody_waited_for_it_makes_nobody_an_owner(
    path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spool(path).close()
    flock = fcntl.flock

    def lock_late(file: Any, operation: int) -> None:
        """Lock a file that was opened before it was removed with an emptied spool."""
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with contextlib.closing(Spool(path)), pytest.raises(SpoolUnusable, match="belongs to another process"):
        Spool(path)


# -- its folder


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "spool.db"

    Spool(path).close()
    assert path.exists()


def test_a_folder_that_cannot_be_made_is_an_error_to_act_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SpoolUnusable, match=r"DATABASE_URL: .*/file/spool.db cannot be opened"):
        Spool(tmp_path / "file" / "spool.db")


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Be a user without root's rights, if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_cannot_be_written_is_an_error_to_act_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with without_privileges(), pytest.raises(SpoolUnusable, match=r"DATABASE_URL: .* opened: Permission denied"):
            Spool(tmp_path / "spool.db")
    finally:
        tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_the_lock_is_an_error_to_act_on(path: Path) -> None:
    path.with_name("spool.db.lock").symlink_to("/dev/full")

    with pytest.raises(SpoolUnusable, match=r"DATABASE_URL: .* cannot be opened"):
        Spool(path)


def test_a_look_for_the_owner_keeps_no_server_from_starting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Spool(path).close()
    looking = path.with_name("spool.db.lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: looking.close())
    Spool(path).close()
    assert looking.closed
