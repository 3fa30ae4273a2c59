"""Counts since the start of the process: plain numbers, which a scrape reads.

All are counted in the event loop, so adding needs no lock.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field

from forebay.model import Verdict


class Overload(enum.StrEnum):
    """A connection or request that was closed or refused for lack of room."""

    NEW_CONNECTION = "new_connection"
    IDLE_CONNECTION = "idle_connection"
    NEW_REQUEST = "new_request"
    SLOW_REQUEST = "slow_request"


@dataclass
class Counters:
    """Counts since the start of this process; of events unless the name says otherwise."""

    accepted: int = 0
    rejected: int = 0  # as the client's mistake: events and requests
    uncorrected: int = 0  # their `sent_at` is too far from our clock to correct their `timestamp`
    unavailable: int = 0  # the client was told to send them again
    overflowed: int = 0  # stored while the channel was full
    redelivered: int = 0  # loaded from the spool into the channel
    requests: Counter[int] = field(default_factory=Counter)  # responses to events and to garbage, by status
    crowded: Counter[Overload] = field(default_factory=Counter)  # connections and requests that were closed or refused
    outcomes: Counter[Verdict] = field(default_factory=Counter)
    unexpected_answers: int = 0  # bulks with an unrecognised response
    bulks: int = 0
    bulk_seconds: float = 0.0
    bulks_in_flight: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    commit_failures: int = 0
    key_fetches: Counter[str] = field(default_factory=Counter)  # of the keys of providers, by issuer
    key_fetch_failures: Counter[str] = field(default_factory=Counter)
    keys_fetched_at: dict[str, float] = field(default_factory=dict)  # the newest that could be used, seconds since 1970
    clients: list[str] = field(default_factory=list)  # the first two addresses from which events came
    denied: Counter[str] = field(default_factory=Counter)  # requests that the denial list refused, by kind
    denials: int = 0  # entries of the denial list, as last read
    denial_failures: int = 0  # looks at the denial list that failed
