"""Changes of the list: one at a time, each whole or not at all, readable for the server's user alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forebay.denials import changing
from forebay.denials.entries import ENTRIES_MAX, Kind, read_entries, read_stamp
from forebay.errors import ListNotChanged, SettingsError
from unit.denials.making import Files, denial

ADDER = [sys.executable, str(Path(__file__).with_name("adder.py"))]
TIMEOUT_S = 60.0
STRANGER = 12_345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def test_an_entry_of_the_same_kind_and_value_is_replaced_by_the_last_one_and_others_stay(files: Files) -> None:
    changing.add(*files, [denial(Kind.SUB, "a", reason="first"), denial(Kind.DEVICE, "a")])
    changing.add(*files, [denial(Kind.SUB, "a", reason="second"), denial(Kind.SUB, "b")])
    assert [(line["kind"], line["value"], line["reason"]) for line in files.read()] == [
        ("device", "a", ""),
        ("sub", "a", "second"),
        ("sub", "b", ""),
    ]


def test_an_entry_is_removed_by_kind_and_value(files: Files) -> None:
    changing.add(*files, [denial(Kind.SUB, "a"), denial(Kind.DEVICE, "a"), denial(Kind.SUB, "b")])
    changing.remove(*files, [(Kind.SUB, "a"), (Kind.SUB, "b")])
    assert [(line["kind"], line["value"]) for line in files.read()] == [("device", "a")]
    changing.remove(*files, [(Kind.DEVICE, "a")])
    assert files.denials.read_bytes() == b""


def test_nothing_is_removed_if_one_of_them_is_not_in_the_list(files: Files) -> None:
    changing.add(*files, [denial(Kind.SUB, "a")])
    with pytest.raises(ListNotChanged, match="sub b is not in the list"):
        changing.remove(*files, [(Kind.SUB, "a"), (Kind.SUB, "b")])
    assert files.values() == ["a"]


def test_entries_that_have_ended_leave_with_the_next_change(files: Files) -> None:
    now = datetime.now(UTC)
    files.write(denial(Kind.SUB, "over", now), denial(Kind.SUB, "holds", now + timedelta(hours=1)))
    changing.add(*files, [denial(Kind.SUB, "new")])
    assert files.values() == ["holds", "new"]


def test_a_full_list_takes_no_more_and_stays(files: Files) -> None:
    files.write(*(denial(Kind.SUB, str(number)) for number in range(ENTRIES_MAX)))
    with pytest.raises(ListNotChanged, match="the list is full"):
        changing.add(*files, [denial(Kind.SUB, "one more")])
    assert len(read_entries(files.denials)) == ENTRIES_MAX
    changing.add(*files, [denial(Kind.SUB, "0", reason="changed")])


def test_a_list_that_would_be_too_large_to_be_read_is_not_written(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "FILE_BYTES_MAX", 200)
    with pytest.raises(ListNotChanged, match="the list is full"):
        changing.add(*files, [denial(Kind.SUB, "x" * 200)])
    assert not files.denials.exists()


def test_a_damaged_list_is_left_as_it_is(files: Files) -> None:
    files.denials.write_bytes(b"damaged")
    with pytest.raises(SettingsError, match="line 1"):
        changing.add(*files, [denial(Kind.SUB, "a")])
    assert files.denials.read_bytes() == b"damaged"


def test_a_folder_without_a_spool_is_taken_for_a_wrong_one(files: Files) -> None:
    files.database.unlink()
    with pytest.raises(ListNotChanged, match="with the settings of the server"):
        changing.add(*files, [denial(Kind.SUB, "a")])
    assert not files.denials.exists()


def test_the_list_is_readable_for_its_owner_alone_whatever_it_was_before(files: Files) -> None:
    files.denials.touch(0o666)
    files.denials.with_name(f"{files.denials.name}.new").touch(0o666)
    former = os.umask(0)
    try:
        changing.add(*files, [denial(Kind.SUB, "a")])
    finally:
        os.umask(former)
    assert stat.S_IMODE(files.denials.stat().st_mode) == 0o600


@as_root
def test_a_list_written_by_root_belongs_to_the_owner_of_the_spool(files: Files) -> None:
    os.chown(files.database, STRANGER, STRANGER + 1)
    changing.add(*files, [denial(Kind.SUB, "a")])
    found = files.denials.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (STRANGER, STRANGER + 1, 0o600)


def test_a_user_whose_list_the_server_could_not_read_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    changing.add(*files, [denial(Kind.SUB, "a")])
    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(ListNotChanged, match=f"run this as its user .uid {files.database.stat().st_uid}. or as root"):
        changing.add(*files, [denial(Kind.SUB, "b")])
    assert files.values() == ["a"]


def test_a_disk_without_room_leaves_the_old_list(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    changing.add(*files, [denial(Kind.SUB, "a")])
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ListNotChanged, match="cannot be written: No space left on device"):
        changing.add(*files, [denial(Kind.SUB, "b")])
    assert files.values() == ["a"]


def test_the_list_is_synced_before_it_is_put_in_place_and_its_folder_afterwards(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, bool]] = []
    sync = os.fsync

    def note_sync(descriptor: int) -> None:
        sync(descriptor)
        steps.append(("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file", files.denials.exists()))

    monkeypatch.setattr(os, "fsync", note_sync)
    changing.add(*files, [denial(Kind.SUB, "a")])
    assert steps == [("file", False), ("folder", True)]


def test_each_list_is_younger_than_the_one_before_even_if_the_clock_is_set_back(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_000)
    written = []
    for number in range(3):
        changing.add(*files, [denial(Kind.SUB, str(number))])
        stamp = read_stamp(files.denials)
        assert stamp is not None
        written.append(stamp.mtime_ns)
    assert written == [1_000, 1_001, 1_002]


def test_a_command_that_finds_another_one_at_work_for_long_gives_up(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "WAIT_S_MAX", 0.1)
    folder = os.open(files.denials.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(ListNotChanged, match="another command"):
            changing.add(*files, [denial(Kind.SUB, "a")])
    finally:
        os.close(folder)
    changing.add(*files, [denial(Kind.SUB, "a")])


def test_several_processes_that_change_the_list_at_once_lose_none_of_their_entries(files: Files) -> None:
    adders = [
        subprocess.Popen([*ADDER, str(files.database), prefix, "25"], stdout=subprocess.DEVNULL) for prefix in "abcd"
    ]
    assert [adder.wait(TIMEOUT_S) for adder in adders] == [0] * 4
    assert sorted(files.values()) == sorted(f"{prefix}{number}" for prefix in "abcd" for number in range(25))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_process_killed_amid_changes_leaves_those_it_answered_and_a_whole_list(files: Files, seed: int) -> None:
    chance = random.Random(seed)
    expected: set[str] = set()
    for run in range(4):
        command = [*ADDER, str(files.database), f"{run}-", "100000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            too_late = threading.Timer(TIMEOUT_S, process.kill)
            too_late.start()
            assert process.stdout.readline() == "ready\n"
            answered = [process.stdout.readline().strip() for _ in range(chance.randrange(1, 15))]
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.random() * 0.003)
            process.kill()
            answered += process.stdout.read().split()
            too_late.cancel()
        expected |= set(answered)
        # The last one may be in the list, and was not answered yet.
        expected |= set(files.values()) & {f"{run}-{len(answered)}"}
        assert set(files.values()) == expected


def test_a_process_killed_before_any_of_its_calls_leaves_the_old_or_the_new_list(files: Files) -> None:
    changing.add(*files, [denial(Kind.DEVICE, "old")])
    found = []
    for kill_at in range(1, 100):
        before = files.values()
        done = subprocess.run([*ADDER, str(files.database), f"{kill_at}-", "1", str(kill_at)], check=False)
        assert files.values() in (before, [*before, f"{kill_at}-0"])
        found.append(len(files.values()) - len(before))
        if done.returncode == 0:
            break
        assert done.returncode == -9
    # The old one in the beginning, and from some call on the new one.
    assert found == sorted(found)
    assert len(found) > 6
    assert (found[0], found[-1]) == (0, 1)
