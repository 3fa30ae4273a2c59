"""Lengths and numbers of a trial: the full form for the document, and the short one for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Scale(NamedTuple):
    """The size of a trial.

    Attributes:
        rate: events a second that the clients send.
        events_before: events that are accepted before the fault begins.
        fault_s: the least time that a fault lasts.
        hits: bulks that it must have met.
        kills: the times that a process is killed, or ended, in one trial.
        freeze_s: the time for which a frozen OpenSearch answers nothing.
        log_bytes: the size of the large log of SQLite beside which a server starts.
        latency_s: the time of each answer of a slow OpenSearch.
        settings: of the server, for all trials.
    """

    rate: float
    events_before: int
    fault_s: float
    hits: int
    kills: int
    freeze_s: float
    log_bytes: int
    latency_s: float
    settings: Mapping[str, str]


FULL = Scale(
    rate=1_500,
    events_before=3_000,
    fault_s=5,
    hits=3,
    kills=20,
    freeze_s=30,
    log_bytes=250_000_000,
    latency_s=2,
    settings={
        "FOREBAY_BULK_INTERVAL_S": "1",
        "FOREBAY_BULK_TIMEOUT_S": "5",
        "FOREBAY_RETRY_DELAY_S_MIN": "0.5",
        "FOREBAY_RETRY_DELAY_S_MAX": "5",
        "FOREBAY_RETRY_INTERVAL_S": "10",
    },
)
SHORT = Scale(
    rate=300,
    events_before=400,
    fault_s=0.5,
    hits=2,
    kills=2,
    freeze_s=3.5,
    log_bytes=60_000_000,
    latency_s=0.6,
    settings={
        "FOREBAY_BULK_INTERVAL_S": "0.2",
        # An OpenSearch that shares two cores with other tests may take seconds, and that is not the fault of a row.
        "FOREBAY_BULK_TIMEOUT_S": "10",
        "FOREBAY_RETRY_DELAY_S_MIN": "0.1",
        "FOREBAY_RETRY_DELAY_S_MAX": "0.4",
        "FOREBAY_RETRY_INTERVAL_S": "1",
    },
)
