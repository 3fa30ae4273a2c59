"""Health: can the server take events, and what is wrong with it.

A sink that is down does not make the server unready: taking events while OpenSearch is away is what it is for, and a
load balancer that turned clients away would lose what the spool keeps. It is degraded, and says so.
"""

from __future__ import annotations

from typing import NamedTuple

from forebay.pipeline.gate import Health
from forebay.pipeline.pipeline import State


class Readiness(NamedTuple):
    """Whether events are taken, in a word, and what is wrong."""

    takes_events: bool
    status: str
    causes: list[str]


def judge_readiness(state: State, *, stopping: bool) -> Readiness:
    """Say how the server is."""
    causes = []
    if stopping:
        causes.append("the server is shutting down")
    if state.spool_full:
        causes.append("the spool is full: see FOREBAY_SPOOL_BYTES_MAX, and why the sink takes no events")
    if state.spool_failure:
        causes.append(state.spool_failure)
    takes_events = not causes
    if state.sink_health is not Health.GOOD:
        causes.append(f"the sink is {state.sink_health.value}: {state.sink_cause}{_advise(state.sink_advice)}")
    causes += [
        f"the index {hold.index_name} is on hold: {hold.error_type}: {hold.reason}{_advise(hold.advice)}"
        for hold in state.holds
    ]
    status = "ready" if not causes else "degraded" if takes_events else "unready"
    return Readiness(takes_events, status, causes)


def _advise(advice: str) -> str:
    return f"; {advice}" if advice else ""
