"""The list in force in a process: a change soon counts, and a list that cannot be read changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from forebay.denials import changing, denials
from forebay.denials.denials import Denials
from forebay.denials.entries import Denial, Kind
from forebay.errors import SettingsError
from forebay.telemetry.counters import Counters
from unit.denials.making import Files, denial

WAIT_S = 10.0
DIGEST = "ab" * 32
ADDRESS = "192.0.2.7"


def read(files: Files, *entries: Denial, counters: Counters | None = None) -> Denials:
    files.write(*entries)
    return Denials(files.denials, counters or Counters())


@contextlib.asynccontextmanager
async def watched(files: Files, monkeypatch: pytest.MonkeyPatch, *entries: Denial) -> AsyncIterator[Denials]:
    """Watch the list, which is looked at often."""
    monkeypatch.setattr(denials, "LOOK_S", 0.01)
    found = read(files, *entries)
    task = asyncio.create_task(found.watch())
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def wait_version(found: Denials, version: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while found.version != version:
            await asyncio.sleep(0.005)


async def wait_failures(found: Denials, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while found._counters.denial_failures < count:
            await asyncio.sleep(0.005)


def test_nobody_is_shut_out_without_a_list(files: Files) -> None:
    found = Denials(files.denials, Counters())
    assert not found.is_revoked(("jti", DIGEST), "alice")
    assert not found.is_denied(b"device", ADDRESS)
    assert not found.is_denied(None, None)


def test_a_token_is_revoked_by_its_jti_or_its_digest_and_by_its_user(files: Files) -> None:
    found = read(files, denial(Kind.TOKEN, DIGEST), denial(Kind.TOKEN, "jti"), denial(Kind.SUB, "alice"))
    assert found.is_revoked((DIGEST,), "bob")
    assert found.is_revoked(("jti", "cd" * 32), "bob")
    assert found.is_revoked(("other", "cd" * 32), "alice")
    assert not found.is_revoked(("other", "cd" * 32), "bob")
    assert not found.is_revoked(("alice",), "jti")


def test_a_device_is_shut_out_by_the_text_that_its_documents_show(files: Files) -> None:
    found = read(files, denial(Kind.DEVICE, "phone"), denial(Kind.DEVICE, "café"), denial(Kind.DEVICE, "日本"))
    sent = (b"phone", "café".encode(), "café".encode("latin-1"), "日本".encode())
    assert [found.is_denied(device, None) for device in sent] == [True] * 4
    assert [found.is_denied(device, ADDRESS) for device in (b"Phone", b"", None)] == [False] * 3


def test_an_address_is_shut_out_by_itself_and_by_its_network(files: Files) -> None:
    found = read(files, denial(Kind.ADDRESS, "192.0.2.0/24"), denial(Kind.ADDRESS, "2001:db8::1"))
    inside = (ADDRESS, "::ffff:192.0.2.9", "2001:db8::1", "2001:DB8:0::1", "2001:db8::1%eth0")
    assert [found.is_denied(b"device", address) for address in inside] == [True] * 5
    outside = ("192.0.3.1", "2001:db8::2", "::192.0.2.9", "", "unknown", "192.0.2.7/32", "192.0.2.7\0")
    assert [found.is_denied(None, address) for address in outside] == [False] * 7


def test_an_entry_ends_by_itself(files: Files) -> None:
    now = datetime.now(UTC)
    ends = {"over": now, "holds": now + timedelta(hours=1)}
    found = read(files, *(denial(kind, value, end) for kind in (Kind.SUB, Kind.DEVICE) for value, end in ends.items()))
    assert [found.is_revoked((), user) for user in ends] == [False, True]
    assert [found.is_denied(device.encode(), None) for device in ends] == [False, True]


def test_each_refusal_is_counted_by_the_kind_of_its_entry(files: Files) -> None:
    counters = Counters()
    found = read(files, *(denial(kind, "192.0.2.7") for kind in Kind), counters=counters)
    found.is_revoked(("192.0.2.7",), "192.0.2.7")
    found.is_revoked(("x",), "192.0.2.7")
    found.is_denied(b"192.0.2.7", ADDRESS)
    found.is_denied(b"x", ADDRESS)
    found.is_denied(b"x", None)
    assert counters.denied == {"token": 1, "sub": 1, "device": 1, "address": 1}
    assert counters.denials == 4


@pytest.mark.parametrize("content", [b"damaged", b'{"kind":"sub"}\n'])
def test_a_damaged_list_refuses_the_start(files: Files, content: bytes) -> None:
    files.denials.write_bytes(content)
    with pytest.raises(SettingsError, match="line 1"):
        Denials(files.denials, Counters())


def test_a_list_that_may_not_be_read_refuses_the_start(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    files.write()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SettingsError, match=r"spool\.db\.denials .* cannot be read: Permission denied"):
        Denials(files.denials, Counters())


async def test_each_change_soon_counts_and_gives_a_new_version(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(files, monkeypatch) as found:
        before = found.version
        changing.add(*files, [denial(Kind.SUB, "alice")])
        await wait_version(found, before + 1)
        assert found.is_revoked((), "alice")
        changing.add(*files, [denial(Kind.DEVICE, "phone")])
        await wait_version(found, before + 2)
        assert found.is_denied(b"phone", None)
        changing.remove(*files, [(Kind.SUB, "alice")])
        await wait_version(found, before + 3)
        assert not found.is_revoked((), "alice")
        assert found._counters.denials == 1


async def test_a_first_list_that_is_made_while_the_server_runs_counts(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denials, "LOOK_S", 0.01)
    found = Denials(files.denials, Counters())
    task = asyncio.create_task(found.watch())
    changing.add(*files, [denial(Kind.SUB, "alice")])
    await wait_version(found, 1)
    assert found.is_revoked((), "alice")
    task.cancel()


async def test_a_list_that_stays_is_not_read_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    async with watched(files, monkeypatch, denial(Kind.SUB, "alice")) as found:
        before = found.version
        monkeypatch.setattr(denials, "read_bytes", reads.append)
        await asyncio.sleep(0.1)
    assert (reads, found.version) == ([], before)


async def test_a_damaged_list_keeps_the_former_one_and_is_told_once(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as lines:
        async with watched(files, monkeypatch, denial(Kind.SUB, "alice")) as found:
            before = found.version
            files.denials.write_bytes(b"damaged")
            await wait_failures(found, 3)
            assert found.is_revoked((), "alice")
            assert found.version == before
            files.write(denial(Kind.SUB, "bob"))
            await wait_version(found, before + 1)
            assert (found.is_revoked((), "alice"), found.is_revoked((), "bob")) == (False, True)
    told = [line for line in lines if line["event"] == "denials_unreadable"]
    assert [(line["log_level"], line["entries_kept"]) for line in told] == [("error", 1)]
    assert "line 1" in told[0]["cause"]


async def test_a_damaged_list_is_read_once_and_not_each_second(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def read_once(path: Path) -> bytes:
        reads.append(path)
        return path.read_bytes()

    async with watched(files, monkeypatch) as found:
        monkeypatch.setattr(denials, "read_bytes", read_once)
        files.denials.write_bytes(b"damaged")
        await wait_failures(found, 5)
    # A second time if it was seen half written.
    assert len(reads) <= 2


async def test_a_list_that_is_removed_stays_in_force(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as lines:
        async with watched(files, monkeypatch, denial(Kind.SUB, "alice")) as found:
            files.denials.unlink()
            await wait_failures(found, 3)
            assert found.is_revoked((), "alice")
            changing.add(*files, [denial(Kind.SUB, "bob")])
            await wait_version(found, 2)
            assert found.is_revoked((), "bob")
            files.denials.unlink()
            await wait_failures(found, found._counters.denial_failures + 2)
    # Each time that it happens, and not each second.
    assert len([line for line in lines if line["event"] == "denials_unreadable"]) == 2


async def test_a_list_that_cannot_be_read_for_a_while_is_read_as_soon_as_it_can(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = ["Too many open files"] * 3

    def read_late(path: Path) -> bytes:
        if failures:
            raise SettingsError(failures.pop())
        return path.read_bytes()

    async with watched(files, monkeypatch) as found:
        monkeypatch.setattr(denials, "read_bytes", read_late)
        files.write(denial(Kind.SUB, "alice"))
        await wait_version(found, 2)
        assert found.is_revoked((), "alice")


async def test_no_fault_ends_the_watch(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    async with watched(files, monkeypatch) as found:
        with monkeypatch.context() as patched:
            patched.setattr(denials, "decode_entries", fail)
            files.write(denial(Kind.SUB, "alice"))
            await wait_failures(found, 1)
        files.write(denial(Kind.SUB, "bob"))
        await wait_version(found, 2)
        assert found.is_revoked((), "bob")


async def test_a_disk_that_hangs_does_not_stop_the_event_loop(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hung, over = threading.Event(), threading.Event()
    ended_by_us = []

    def hang(_: Path) -> None:
        hung.set()
        ended_by_us.append(over.wait(WAIT_S))

    async with watched(files, monkeypatch, denial(Kind.SUB, "alice")) as found:
        monkeypatch.setattr(denials, "read_stamp", hang)
        async with asyncio.timeout(WAIT_S):
            while not hung.is_set():
                await asyncio.sleep(0.005)
        assert found.is_revoked((), "alice")
        over.set()
        async with asyncio.timeout(WAIT_S):
            while not ended_by_us:
                await asyncio.sleep(0.005)
    assert ended_by_us[0] is True


async def test_a_list_restored_with_its_old_time_is_still_another_one(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(files, monkeypatch, denial(Kind.SUB, "alice")) as found:
        at = files.denials.stat().st_mtime_ns
        files.write(denial(Kind.SUB, "carol"))
        os.utime(files.denials, ns=(at, at))
        await wait_version(found, found.version + 1)
        assert found.is_revoked((), "carol")
