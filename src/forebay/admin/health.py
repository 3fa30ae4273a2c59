"""Health: whether the server takes events, and the causes if something is wrong.

A sink that is down makes the server degraded, not unready: it is there to take events while OpenSearch is away, and a
load balancer that turned clients away would lose events that the spool can store.
"""

from __future__ import annotations

from typing import NamedTuple

from forebay.admin.snapshot import ServerSnapshot, Snapshot
from forebay.pipeline.gate import Health


class Readiness(NamedTuple):
    """Whether events are taken, the status in a word, and the causes if something is wrong."""

    takes_events: bool
    status: str
    causes: list[str]


def judge_readiness(server: ServerSnapshot) -> Readiness:
    """Return the readiness of the server: it takes events while one of its workers does."""
    causes = []
    takes_events = False
    for number, snapshot in sorted(server.snapshots.items()):
        refusals, troubles = _find_causes(snapshot)
        if number > server.workers:
            # Nobody sends events to it, and its end in order is its purpose.
            refusals = [snapshot.state.spool_failure] if snapshot.state.spool_failure else []
            prefix = f"orphan {number}: "
        else:
            takes_events = takes_events or not refusals
            prefix = f"worker {number}: " if server.is_supervised else ""
        causes += [f"{prefix}{cause}" for cause in refusals + troubles]
    causes += [f"worker {number} does not answer" for number in server.missing]
    causes += server.left_spools
    status = "ready" if not causes else "degraded" if takes_events else "unready"
    return Readiness(takes_events, status, causes)


def _find_causes(snapshot: Snapshot) -> tuple[list[str], list[str]]:
    """Return why a process takes no events, and its other troubles."""
    state = snapshot.state
    refusals = []
    if snapshot.stopping:
        refusals.append("the server is shutting down")
    if state.spool_full:
        refusals.append("the spool is full: see FOREBAY_SPOOL_BYTES_MAX, and why the sink takes no events")
    if state.spool_failure:
        refusals.append(state.spool_failure)
    troubles = []
    if state.sink_health is not Health.GOOD:
        troubles.append(f"the sink is {state.sink_health.value}: {state.sink_cause}{_advise(state.sink_advice)}")
    troubles += [
        f"the index {hold.index_name} is on hold: {hold.error_type}: {hold.reason}{_advise(hold.advice)}"
        for hold in state.holds
    ]
    counters = snapshot.counters
    troubles += [
        f"the keys of {issuer} could not be fetched yet: its clients get 503"
        for issuer, failures in counters.key_fetch_failures.items()
        if failures and issuer not in counters.keys_fetched_at
    ]
    return refusals, troubles


def _advise(advice: str) -> str:
    return f"; {advice}" if advice else ""
