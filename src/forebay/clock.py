"""The clock that events and rows are stamped with."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Return the milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Clock:
    """Tells the time to the millisecond, as OpenSearch keeps a `date` (its documentation of that field type).

    All who ask within one millisecond get the same object, and encode it once.
    """

    def __init__(self) -> None:
        self._now_ms = 0
        self._now = _EPOCH

    def now(self) -> datetime:
        """Return the time in UTC."""
        at_ms = time.time_ns() // 1_000_000
        if at_ms != self._now_ms:
            self._now_ms = at_ms
            self._now = _EPOCH + timedelta(milliseconds=at_ms)
        return self._now
