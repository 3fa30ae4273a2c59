"""What has happened since the start, as plain numbers that their owners add to and a scrape reads.

Everything is counted in the event loop, so adding needs no lock, and nothing is computed until somebody asks.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field

from forebay.model import Verdict


class Overload(enum.StrEnum):
    """What gave way where there was no room for all."""

    NEW_CONNECTION = "new_connection"
    IDLE_CONNECTION = "idle_connection"
    NEW_REQUEST = "new_request"
    SLOW_REQUEST = "slow_request"


@dataclass
class Counters:
    """Counts since the start of this process, in events where the name does not say otherwise."""

    accepted: int = 0
    rejected: int = 0  # told to the client as a mistake of its own
    uncorrected: int = 0  # accepted with a `sent_at` too far from our clock to correct their `timestamp`
    unavailable: int = 0  # told to the client to send again
    overflowed: int = 0  # stored while the channel had no room
    redelivered: int = 0  # taken from the spool back into the channel
    requests: Counter[int] = field(default_factory=Counter)  # answers of the event addresses, by status
    crowded: Counter[Overload] = field(default_factory=Counter)  # connections and requests that gave way
    outcomes: Counter[Verdict] = field(default_factory=Counter)
    unexpected_answers: int = 0  # bulks that the sink gave an answer to which nobody expects
    bulks: int = 0
    bulk_seconds: float = 0.0
    bulks_in_flight: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    commit_failures: int = 0
