"""Whether the server takes events, and what it says is wrong."""

from __future__ import annotations

import pytest

from forebay.admin.health import judge_readiness
from forebay.pipeline.gate import Health
from forebay.pipeline.pipeline import State

WELL = State(
    channel_events=0,
    channel_bytes=0,
    stored_events=0,
    stored_bytes=0,
    pending_events=0,
    sink_health=Health.GOOD,
    sink_cause="",
    spool_failure="",
    spool_full=False,
)


def test_a_server_with_nothing_wrong_is_ready() -> None:
    assert judge_readiness(WELL, stopping=False) == (True, "ready", [])


@pytest.mark.parametrize("health", [Health.FAILED, Health.PAUSED])
def test_a_sink_that_takes_nothing_makes_it_degraded_and_not_unready(health: Health) -> None:
    state = WELL._replace(sink_health=health, sink_cause="connection refused")
    assert judge_readiness(state, stopping=False) == (
        True,
        "degraded",
        [f"the sink is {health.value}: connection refused"],
    )


def test_a_full_spool_makes_it_unready() -> None:
    takes_events, status, causes = judge_readiness(WELL._replace(spool_full=True), stopping=False)
    assert (takes_events, status) == (False, "unready")
    assert "FOREBAY_SPOOL_BYTES_MAX" in causes[0]


def test_a_spool_that_fails_makes_it_unready() -> None:
    state = WELL._replace(spool_failure="the disk is full")
    assert judge_readiness(state, stopping=False) == (False, "unready", ["the disk is full"])


def test_a_server_that_stops_is_unready() -> None:
    assert judge_readiness(WELL, stopping=True) == (False, "unready", ["the server is shutting down"])


def test_everything_that_is_wrong_is_named() -> None:
    state = WELL._replace(spool_full=True, spool_failure="x", sink_health=Health.FAILED, sink_cause="y")
    takes_events, status, causes = judge_readiness(state, stopping=True)
    assert (takes_events, status, len(causes)) == (False, "unready", 4)
