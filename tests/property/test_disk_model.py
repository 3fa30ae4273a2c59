"""The model of a disk loses the bytes that a disk may lose, and no others."""

from __future__ import annotations

import random

import pytest

from property.disk_model import PAGE_BYTES, SECTOR_BYTES, Disk, DiskFile, Luck

NOTHING_LANDS = Luck(random.Random(1), landing=0, tearing=0)
ALL_LANDS = Luck(random.Random(1), landing=1, tearing=0)


def make_file(content: bytes) -> DiskFile:
    file = DiskFile()
    file.write(0, content)
    file.sync()
    return file


def test_synced_writes_survive_a_loss_of_power_and_others_need_not() -> None:
    file = make_file(b"old" * 3000)
    file.write(100, b"new" * 2000)
    file.lose_power(NOTHING_LANDS)
    assert file.content == b"old" * 3000


def test_a_failed_sync_leaves_pages_that_no_later_sync_takes_to_the_disk() -> None:
    file = make_file(b"old")
    file.write(0, b"new")
    file.fail_to_sync(NOTHING_LANDS)
    file.sync()
    assert file.content == b"new", "programs see it"
    file.lose_power(ALL_LANDS)
    assert file.content == b"old", "the disk never had it"


def test_a_kernel_that_forgets_pages_it_did_not_write_shows_those_of_the_disk() -> None:
    file = make_file(b"old")
    file.write(0, b"newer")
    assert file.fail_to_sync(NOTHING_LANDS, forgets=True) == [(0, b"old\0\0")]
    assert file.content == b"old\0\0"


def test_a_page_that_is_written_to_again_after_a_failed_sync_is_synced_whole() -> None:
    file = make_file(b"old, old")
    file.write(0, b"new")
    file.fail_to_sync(NOTHING_LANDS)
    file.write(5, b"new")
    file.sync()
    file.lose_power(NOTHING_LANDS)
    assert file.content == b"new, new"


def test_a_truncation_that_was_not_synced_may_be_undone_and_one_that_was_synced_is_not() -> None:
    file = make_file(b"old" * 3000)
    file.truncate(0)
    kept = file.copy()
    kept.lose_power(NOTHING_LANDS)
    assert kept.content == b"old" * 3000
    file.sync()
    file.lose_power(NOTHING_LANDS)
    assert file.content == b""


def test_pages_that_a_failed_sync_took_to_the_disk_after_a_truncation_outlive_the_truncation() -> None:
    file = make_file(bytes(2 * PAGE_BYTES))
    file.truncate(0)
    file.write(0, b"new")
    file.fail_to_sync(ALL_LANDS)
    file.sync()
    file.lose_power(NOTHING_LANDS)
    assert file.content == b"new"


def test_a_torn_page_has_sectors_of_before_and_after_and_no_others() -> None:
    old, new = b"o" * PAGE_BYTES, b"n" * PAGE_BYTES
    file = make_file(old)
    file.write(0, new)
    file.lose_power(Luck(random.Random(1), landing=0.5, tearing=1))
    sectors = {file.content[start : start + SECTOR_BYTES] for start in range(0, PAGE_BYTES, SECTOR_BYTES)}
    assert sectors == {old[:SECTOR_BYTES], new[:SECTOR_BYTES]}


def test_a_name_is_there_for_certain_once_the_file_or_its_folder_was_synced() -> None:
    disk = Disk()
    disk.open("log")
    disk.sync("log")
    disk.delete("log")
    disk.open("other")
    disk.sync_names()
    disk.lose_power(NOTHING_LANDS)
    assert disk.files.keys() == {"other"}


@pytest.mark.parametrize("seed", range(5))
def test_a_file_that_was_deleted_without_a_sync_comes_back_whole_if_it_comes_back(seed: int) -> None:
    disk = Disk()
    disk.open("log")
    disk.files["log"].write(0, b"content")
    disk.sync("log")
    disk.delete("log")
    disk.lose_power(Luck(random.Random(seed), landing=0.5, tearing=0))
    assert [file.content for file in disk.files.values()] in ([], [b"content"])


def test_a_copy_of_a_disk_knows_nothing_of_later_changes_to_the_disk() -> None:
    disk = Disk()
    disk.open("log")
    twin = disk.copy()
    disk.files["log"].write(0, b"later")
    disk.delete("log")
    assert twin.files["log"].content == b""
