"""Whether the server takes events, and the causes if something is wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from forebay.admin.health import Readiness, judge_readiness
from forebay.admin.snapshot import ServerSnapshot, Snapshot
from forebay.pipeline.gate import Health
from forebay.pipeline.holds import HoldState
from forebay.pipeline.pipeline import State
from forebay.telemetry.counters import Counters

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


def take_snapshot(slot: int, state: State, *, stopping: bool = False) -> Snapshot:
    return Snapshot(slot, Counters(), state, {}, stopping)


def judge_alone(state: State, *, stopping: bool = False) -> Readiness:
    return judge_readiness(ServerSnapshot(1, {1: take_snapshot(1, state, stopping=stopping)}))


def judge_three(*states: State) -> Readiness:
    """Judge a server of three workers; those with a state answer."""
    return judge_readiness(
        ServerSnapshot(
            3, {slot: take_snapshot(slot, state) for slot, state in enumerate(states, start=1)}, is_supervised=True
        )
    )


def test_a_server_with_nothing_wrong_is_ready() -> None:
    assert judge_alone(WELL) == (True, "ready", [])


@pytest.mark.parametrize("health", [Health.FAILED, Health.PAUSED])
def test_a_sink_that_takes_nothing_makes_it_degraded_and_not_unready(health: Health) -> None:
    state = WELL._replace(sink_health=health, sink_cause="connection refused")
    assert judge_alone(state) == (
        True,
        "degraded",
        [f"the sink is {health.value}: connection refused"],
    )


def test_a_full_spool_makes_it_unready() -> None:
    takes_events, status, causes = judge_alone(WELL._replace(spool_full=True))
    assert (takes_events, status) == (False, "unready")
    assert "FOREBAY_SPOOL_BYTES_MAX" in causes[0]


def test_a_spool_that_fails_makes_it_unready() -> None:
    state = WELL._replace(spool_failure="the disk is full")
    assert judge_alone(state) == (False, "unready", ["the disk is full"])


def test_a_server_that_stops_is_unready() -> None:
    assert judge_alone(WELL, stopping=True) == (False, "unready", ["the server is shutting down"])


def test_everything_that_is_wrong_is_named() -> None:
    state = WELL._replace(spool_full=True, spool_failure="x", sink_health=Health.FAILED, sink_cause="y")
    takes_events, status, causes = judge_alone(state, stopping=True)
    assert (takes_events, status, len(causes)) == (False, "unready", 4)


def test_a_cause_names_its_remedy() -> None:
    state = WELL._replace(
        sink_health=Health.PAUSED, sink_cause="security_exception: no", sink_advice="look at the role"
    )
    assert judge_alone(state) == (
        True,
        "degraded",
        ["the sink is paused: security_exception: no; look at the role"],
    )


def test_each_index_on_hold_makes_it_degraded_and_is_named() -> None:
    holds = (
        HoldState("events_a_2026-10", 0, "cluster_block_exception", "read-only", "take the block away"),
        HoldState("events_a_2026-11", 0, "index_not_found_exception", "no such index", ""),
    )
    assert judge_alone(WELL._replace(holds=holds)) == (
        True,
        "degraded",
        [
            "the index events_a_2026-10 is on hold: cluster_block_exception: read-only; take the block away",
            "the index events_a_2026-11 is on hold: index_not_found_exception: no such index",
        ],
    )


def test_several_workers_that_are_well_are_ready() -> None:
    assert judge_three(WELL, WELL, WELL) == (True, "ready", [])


def test_a_worker_that_does_not_answer_is_named_and_the_others_still_take_events() -> None:
    assert judge_three(WELL, WELL) == (True, "degraded", ["worker 3 does not answer"])


def test_a_worker_that_takes_no_events_is_named_and_the_others_still_do() -> None:
    failing = WELL._replace(spool_failure="the disk is full")
    assert judge_three(WELL, failing, WELL) == (True, "degraded", ["worker 2: the disk is full"])


def test_a_server_is_unready_if_none_of_its_workers_takes_events() -> None:
    failing = WELL._replace(spool_failure="the disk is full")
    takes_events, status, causes = judge_three(failing, failing, failing)
    assert (takes_events, status, len(causes)) == (False, "unready", 3)


def test_an_orphan_that_cannot_be_emptied_is_a_cause() -> None:
    server = ServerSnapshot(1, {1: take_snapshot(1, WELL)}, ("spool.3.db is damaged",), is_supervised=True)
    assert judge_readiness(server) == (True, "degraded", ["spool.3.db is damaged"])


def test_the_worker_that_empties_an_orphan_tells_its_troubles_and_does_not_count_as_one_that_takes_events() -> None:
    snapshots = {
        1: take_snapshot(1, WELL, stopping=True),
        3: take_snapshot(3, WELL._replace(spool_full=True, spool_failure="the disk is full"), stopping=True),
    }
    readiness = judge_readiness(ServerSnapshot(1, snapshots, is_supervised=True))
    assert readiness == (
        False,
        "unready",
        ["worker 1: the server is shutting down", "orphan 3: the disk is full"],
    )


def test_the_worker_of_an_orphan_makes_the_server_degraded_only_if_it_is_in_trouble() -> None:
    snapshots = {1: take_snapshot(1, WELL), 2: take_snapshot(2, WELL, stopping=True)}
    assert judge_readiness(ServerSnapshot(1, snapshots, is_supervised=True)) == (True, "ready", [])


def test_a_provider_whose_keys_were_never_had_makes_it_degraded() -> None:
    silent = Counters(key_fetches=Counter({"a": 3}), key_fetch_failures=Counter({"a": 3}))
    server = ServerSnapshot(1, {1: Snapshot(1, silent, WELL, {}, stopping=False)})
    assert judge_readiness(server) == (
        True,
        "degraded",
        ["the keys of a could not be fetched yet: its clients get 503"],
    )
    # Its keys are in use for as long as it does not answer.
    silent.keys_fetched_at["a"] = 1.0
    assert judge_readiness(server).status == "ready"
