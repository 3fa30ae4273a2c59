"""Judges the age of a spool's events, and estimates when they will be gone."""

from __future__ import annotations

from typing import NamedTuple

from forebay.doctor.finding import Finding, Level, ok, warn
from forebay.doctor.spool_state import SpoolState

OLD_S = 600
"""From this age on a pending event is worth a warning."""


class Drain(NamedTuple):
    """The events that came between two readings, those that were settled, and those at the end."""

    seconds: float
    came: int
    settled: int
    left: int


def measure_drain(first: SpoolState, second: SpoolState, left_of_first: int) -> Drain:
    """Return the drain; `left_of_first` counts the events that were there at the first reading and still are."""
    return Drain(
        second.at_s - first.at_s,
        second.totals.events - left_of_first,
        first.totals.events - left_of_first,
        second.totals.events,
    )


def judge_pending(state: SpoolState, drain: Drain | None, now_ms: int, settle_s: float) -> Finding:
    """Judge the age of the oldest event and the drain, which is None if no server empties the spool.

    `settle_s` is the usual time to settle an event: until its bulk is full or due, and answered.
    """
    events = state.totals.events
    if not events or state.oldest_at_ms is None:
        return ok("no events wait")
    age_s = max(0.0, (now_ms - state.oldest_at_ms) / 1000)
    text = f"{events} events are not settled, the oldest for {_describe_seconds(age_s)}"
    is_old = age_s > max(OLD_S, 2 * settle_s)
    if drain is None:
        return warn(text, "start the server, and see the log if it runs") if is_old else ok(text)
    if not drain.settled and age_s > settle_s:
        advice = "see `forebay doctor`'s lines about the sink, and /health/ready"
        return Finding(Level.FAIL if is_old else Level.WARN, f"{text}; nothing moves", advice)
    text += f"; {drain.settled / drain.seconds:.0f} settled a second, {drain.came / drain.seconds:.0f} come"
    if drain.settled > drain.came:
        gone_s = drain.left * drain.seconds / (drain.settled - drain.came)
        return ok(f"{text}: gone in about {_describe_seconds(gone_s)}")
    if is_old:
        advice = "let OpenSearch take more: see its load, FOREBAY_BULK_WORKERS, FOREBAY_WORKERS"
        return warn(f"{text}: they do not become fewer", advice)
    return ok(text)


def _describe_seconds(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
