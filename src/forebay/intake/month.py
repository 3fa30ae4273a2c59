"""The index of an event: its month, from a time that a client repeats unchanged (invariant 3).

So an event that is sent again goes to the same index and becomes the same document. The time is the one inside a UUIDv7
`log_id` (RFC 9562, section 5.7), else the event's `timestamp`. Either counts only from a fixed month on, however late
the event comes, and up to a day ahead of our own clock, so that nobody can create indices at will. If neither counts,
it is the time of receipt.

An event with an index of a fixed name has no month (`own_indices.py`): there its `_id` is unique for ever.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta

DAY_MS = 86_400_000

PREFIX_DIGITS = 8
PREFIX_MS = 2**16
"""The first digits of a UUIDv7, and the time that passes until they change."""

PREFIXES_MAX = 10_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# Both cases are written out, as a pattern that ignores the case takes twice the time.
_HEX = "[0-9a-fA-F]"
_UUID7 = re.compile(f"({_HEX}{{8}})-({_HEX}{{4}})-7{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}")


class Months:
    """Finds the index of an event in one environment; a time before `oldest` does not decide it.

    Attributes:
        prefixes: the first digits of UUIDv7s whose time is in the month of today, whatever the other digits are. An
            event without a timestamp whose `log_id` begins with them belongs to that month even if it is no UUIDv7: by
            its time of receipt.
    """

    def __init__(self, environment: str, oldest: datetime) -> None:
        self._environment = environment
        self._oldest_ms = as_ms(oldest)
        self._index_of_day: dict[int, str] = {}
        self._today = 0
        self._index_of_today = ""
        self.prefixes: set[str] = set()

    def find_today(self, received_at: datetime) -> str:
        """Return the index of the month of receipt."""
        today = received_at.toordinal()
        if today != self._today:
            self._today = today
            self._index_of_today = self._index_at(as_ms(received_at))
            self.prefixes.clear()
        return self._index_of_today

    def find(self, log_id: str, happened_at: datetime | None, received_at: datetime) -> str:
        """Return the index of an event; `happened_at` is its timestamp, if it has one."""
        today = self.find_today(received_at)
        newest_ms = as_ms(received_at) + DAY_MS
        time_ms = uuid7_time_ms(log_id)
        if time_ms is not None and self._oldest_ms <= time_ms <= newest_ms:
            self._remember_prefix(log_id, time_ms)
            return self._index_at(time_ms)
        if happened_at is not None and self._oldest_ms <= as_ms(happened_at) <= newest_ms:
            return self._index_at(as_ms(happened_at))
        return today

    def _remember_prefix(self, log_id: str, time_ms: int) -> None:
        first_ms = time_ms - time_ms % PREFIX_MS
        last_ms = first_ms + PREFIX_MS - 1
        if self._index_at(first_ms) == self._index_at(last_ms) == self._index_of_today:
            if len(self.prefixes) >= PREFIXES_MAX:
                self.prefixes.clear()
            self.prefixes.add(log_id[:PREFIX_DIGITS])

    def _index_at(self, time_ms: int) -> str:
        day = time_ms // DAY_MS
        index = self._index_of_day.get(day)
        if index is None:
            month = f"{_EPOCH + timedelta(days=day):%Y-%m}"
            index = self._index_of_day[day] = f"events_{self._environment}_{month}"
        return index


def new_log_id(now_ms: int) -> str:
    """Return a new UUIDv7 (RFC 9562, section 5.7)."""
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7_time_ms(log_id: str) -> int | None:
    """Return the time inside a UUIDv7, in milliseconds since 1970, or None if it is not a UUIDv7."""
    match = _UUID7.fullmatch(log_id)
    return int(match[1] + match[2], 16) if match else None


def as_ms(time: datetime) -> int:
    """Return a time in milliseconds since 1970."""
    return (time - _EPOCH) // _MILLISECOND
