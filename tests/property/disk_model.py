"""A folder on a disk: its files in the kernel's cache, and as a loss of power would leave them.

A write makes pages dirty in the cache. A sync that succeeds has them on the disk, with the size of the file and, where
the file is new, its name. A sync that fails takes each dirty page to the disk or not, and calls it clean all the same:
the kernel never writes it again unless it is written to again (Linux does so,
https://wiki.postgresql.org/wiki/Fsync_Errors). It may go on to show such a page, or forget it and show the disk's.
At a loss of power each page that is still dirty is on the disk, or not, or some of its sectors are; so is each change
of a size or a name that nobody synced, where changes of names happen in their order.
"""

from __future__ import annotations

import copy
import random
from typing import NamedTuple

PAGE_BYTES = 4096
SECTOR_BYTES = 512
EMPTY_PAGE = bytes(PAGE_BYTES)


class Luck(NamedTuple):
    """How likely it is that something reaches the disk that nobody synced, and that a page is torn on its way."""

    chance: random.Random
    landing: float
    tearing: float

    @classmethod
    def draw(cls, chance: random.Random) -> Luck:
        return cls(chance, chance.choice([0, 0.1, 0.5, 0.9, 1, chance.random()]), chance.choice([0, 0, 0.2]))

    def lands(self) -> bool:
        return self.chance.random() < self.landing

    def tear(self, old: bytes, new: bytes) -> bytes:
        """Return a page of which each sector is old or new."""
        sides = [new if self.lands() else old for _ in range(PAGE_BYTES // SECTOR_BYTES)]
        starts = range(0, PAGE_BYTES, SECTOR_BYTES)
        return b"".join(side[start : start + SECTOR_BYTES] for side, start in zip(sides, starts, strict=True))

    def mix(self, old: bytes, new: bytes) -> bytes:
        """Return the bytes on the disk of a page that was on its way when the power went."""
        if self.tearing and self.chance.random() < self.tearing:
            return self.tear(old, new)
        return new if self.lands() else old


class DiskFile:
    """One file, page by page; a page that is not there is empty.

    Attributes:
        size: the size that programs see.
    """

    def __init__(self) -> None:
        self.size = 0
        self._cache: dict[int, bytes] = {}
        self._disk: dict[int, bytes] = {}
        self._disk_size = 0
        self._dirty: set[int] = set()
        # The size that the file was cut to since the last sync, and the pages that reached the disk after that.
        self._cut_to: int | None = None
        self._landed_since: set[int] = set()

    @property
    def content(self) -> bytes:
        """The bytes that programs see."""
        return _join(self._cache, self.size)

    def copy(self) -> DiskFile:
        twin = copy.copy(self)
        twin._cache, twin._disk = dict(self._cache), dict(self._disk)
        twin._dirty, twin._landed_since = set(self._dirty), set(self._landed_since)
        return twin

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        for page in range(offset // PAGE_BYTES, -(-end // PAGE_BYTES)):
            start = page * PAGE_BYTES
            first, last = max(offset, start), min(end, start + PAGE_BYTES)
            new = data[first - offset : last - offset]
            if len(new) < PAGE_BYTES:
                old = self._cache.get(page, EMPTY_PAGE)
                new = old[: first - start] + new + old[last - start :]
            self._cache[page] = new
            self._dirty.add(page)
        self.size = max(self.size, end)

    def truncate(self, size: int) -> None:
        if size >= self.size:
            self.size = size
            return
        if self._landed_since:
            # Changes of a size happen in their order, and this one is much later.
            self._cut_disk()
        self._cut_to = size if self._cut_to is None else min(size, self._cut_to)
        self.size = size
        _cut(self._cache, size)
        self._dirty = {page for page in self._dirty if page * PAGE_BYTES < size}
        if size % PAGE_BYTES:
            self._dirty.add(size // PAGE_BYTES)

    def sync(self) -> None:
        self._cut_disk()
        for page in self._dirty:
            self._disk[page] = self._cache.get(page, EMPTY_PAGE)
        self._dirty.clear()
        self._disk_size = self.size

    def fail_to_sync(self, luck: Luck, *, forgets: bool = False) -> list[tuple[int, bytes]]:
        """Take each dirty page to the disk or not, and take it for clean; sizes are still on their way.

        Returns the offsets of pages that the kernel `forgets`, with the bytes that programs see there from now on.
        """
        lost = []
        for page in sorted(self._dirty):
            if not luck.lands():
                lost.append(page)
                continue
            self._disk[page] = self._cache.get(page, EMPTY_PAGE)
            if self._cut_to is not None:
                self._landed_since.add(page)
        self._dirty.clear()
        return [self._forget(page) for page in lost] if forgets else []

    def _forget(self, page: int) -> tuple[int, bytes]:
        start = page * PAGE_BYTES
        is_cut = self._cut_to is not None and start >= self._cut_to and page not in self._landed_since
        seen = EMPTY_PAGE if is_cut else self._disk.get(page, EMPTY_PAGE)
        self._cache[page] = seen[: self.size - start].ljust(PAGE_BYTES, b"\0")
        return start, seen[: self.size - start]

    def lose_power(self, luck: Luck) -> None:
        """Become as the disk is."""
        if luck.lands():
            self._cut_disk()
        for page in sorted(self._dirty):
            old = self._disk.get(page, EMPTY_PAGE)
            self._disk[page] = luck.mix(old, self._cache.get(page, EMPTY_PAGE))
        if self._disk_size < self.size:
            sizes = (self._disk_size, self.size, luck.chance.randrange(self._disk_size, self.size))
            self._disk_size = self.size if luck.landing == 1 else luck.chance.choice(sizes)
        _cut(self._disk, self._disk_size)
        self._cache, self.size = dict(self._disk), self._disk_size
        self._dirty.clear()
        self._cut_to = None
        self._landed_since.clear()

    def _cut_disk(self) -> None:
        """Have the disk know that the file was cut."""
        if self._cut_to is not None:
            later = {page: self._disk[page] for page in self._landed_since}
            _cut(self._disk, self._cut_to)
            self._disk |= later
            self._disk_size = min(self._disk_size, self._cut_to)
        self._cut_to = None
        self._landed_since.clear()


class Disk:
    """A folder's files by their names."""

    def __init__(self) -> None:
        self.files: dict[str, DiskFile] = {}
        # The names as the disk has them, and after each change since.
        self._names: list[dict[str, DiskFile]] = [{}]

    def copy(self) -> Disk:
        """Return a disk on which everything is as it is on this one."""
        twin = Disk()
        copies = {id(file): file.copy() for names in self._names for file in names.values()}
        twin._names = [{name: copies[id(file)] for name, file in names.items()} for names in self._names]
        twin.files = dict(twin._names[-1])
        return twin

    def open(self, name: str) -> None:
        if name not in self.files:
            self.files[name] = DiskFile()
            self._names.append(dict(self.files))

    def delete(self, name: str) -> None:
        del self.files[name]
        self._names.append(dict(self.files))

    def sync(self, name: str) -> None:
        file = self.files[name]
        file.sync()
        if self._names[0].get(name) is not file:
            self.sync_names()

    def sync_names(self) -> None:
        del self._names[:-1]

    def lose_power(self, luck: Luck) -> None:
        """Become as the disk is."""
        known = len(self._names)
        number = luck.chance.choice([0, known - 1, luck.chance.randrange(known)])
        self.files = dict(self._names[number])
        self._names = [dict(self.files)]
        for file in self.files.values():
            file.lose_power(luck)


def _cut(pages: dict[int, bytes], size: int) -> None:
    for page in [page for page in pages if page * PAGE_BYTES >= size]:
        del pages[page]
    last, kept = divmod(size, PAGE_BYTES)
    if kept and last in pages:
        pages[last] = pages[last][:kept] + bytes(PAGE_BYTES - kept)


def _join(pages: dict[int, bytes], size: int) -> bytes:
    return b"".join(pages.get(page, EMPTY_PAGE) for page in range(-(-size // PAGE_BYTES)))[:size]
