"""Whether the server takes events, and what it says is wrong."""

from __future__ import annotations

import pytest

from forebay.admin.health import judge_readiness
from forebay.pipeline.gate import Health
from forebay.pipeline.holds import HoldState
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


def test_what_an_operator_can_do_is_said() -> None:
    state = WELL._replace(
        sink_health=Health.PAUSED, sink_cause="security_exception: no", sink_advice="look at the role"
    )
    assert judge_readiness(state, stopping=False) == (
        True,
        "degraded",
        ["the sink is paused: security_exception: no; look at the role"],
    )


def test_each_index_on_hold_makes_it_degraded_and_is_named() -> None:
    holds = (
        HoldState("events_a_2026-10", 0, "cluster_block_exception", "read-only", "take the block away"),
        HoldState("events_a_2026-11", 0, "index_not_found_exception", "no such index", ""),
    )
    assert judge_readiness(WELL._replace(holds=holds), stopping=False) == (
        True,
        "degraded",
        [
            "the index events_a_2026-10 is on hold: cluster_block_exception: read-only; take the block away",
            "the index events_a_2026-11 is on hold: index_not_found_exception: no such index",
        ],
    )
