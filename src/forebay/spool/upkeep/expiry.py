"""Finds and deletes dead letters past their retention, by a clock that may be wrong for a while.

Each function is one short piece of work in the spool's thread, as commits wait meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from forebay.history import History
from forebay.model import Entry
from forebay.spool.codec import read_history
from forebay.spool.statements import read_statements
from forebay.spool.store import Store

SQL = read_statements("forebay.spool.upkeep")

EXPIRED_BYTES_MAX = 1024 * 1024
"""The most bytes of dead letters that are read and deleted at once."""

CLOCK_BUCKET_MS = 600_000
CLOCK_BUCKETS_A_DAY = 86_400_000 // CLOCK_BUCKET_MS


class ExpiredLetter(NamedTuple):
    """A dead letter that is past its retention."""

    id: int
    index_name: str
    log_id: str
    error_type: str
    reason: str
    history: History
    died_at_ms: int
    entry: Entry


def list_expired(store: Store, died_before_ms: int, letters_max: int) -> list[ExpiredLetter]:
    """Read some dead letters that are past their retention; the first is read whatever its size."""
    bytes_left = EXPIRED_BYTES_MAX
    letters: list[ExpiredLetter] = []
    with contextlib.closing(store.connection.execute(SQL["list_expired"], (died_before_ms, letters_max))) as rows:
        for letter_id, index_name, log_id, error_type, reason, died_at_ms, entry, *times in rows:
            bytes_left -= len(entry) + len(reason.encode())
            if letters and bytes_left < 0:
                break
            names = (letter_id, index_name, log_id, error_type, reason)
            letters.append(ExpiredLetter(*names, read_history(*times), died_at_ms, entry))
    return letters


def expire(store: Store, letter_ids: Sequence[int], died_before_ms: int) -> int:
    """Delete listed dead letters if they are still past their retention; return the number deleted."""
    with store.transaction():
        parameters = ((letter_id, died_before_ms) for letter_id in letter_ids)
        return store.connection.executemany(SQL["expire_dead"], parameters).rowcount


def note_clock(store: Store, ran_ms: int, clock_ms: int) -> int | None:
    """Add to the running time, and store a sample of the wall clock.

    Return the lowest value of the clock in the last day of running time, None if there was no whole day yet.
    """
    with store.transaction():
        ran_ms += store.connection.execute(SQL["running_time"]).fetchone()[0]
        bucket = ran_ms // CLOCK_BUCKET_MS
        store.connection.execute(SQL["note_clock"], {"bucket": bucket, "ran_ms": ran_ms, "clock_ms": clock_ms})
        # The newest bucket that ended a day ago: everything in it is older than a day.
        day_ago = bucket - CLOCK_BUCKETS_A_DAY - 1
        store.connection.execute(SQL["forget_clock"], (day_ago,))
        lowest_ms, first_bucket = store.connection.execute(SQL["lowest_clock"]).fetchone()
    return int(lowest_ms) if first_bucket <= day_ago else None
