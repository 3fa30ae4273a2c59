"""Metrics as Prometheus reads them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import fields

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forebay import __version__
from forebay.admin.metrics import render
from forebay.admin.snapshot import ServerSnapshot, Snapshot, measure_process
from forebay.denials.entries import Kind
from forebay.model import Verdict
from forebay.pipeline.gate import Health
from forebay.pipeline.holds import HoldState
from forebay.pipeline.pipeline import State
from forebay.telemetry.counters import Counters, Overload

STATE = State(
    channel_events=11,
    channel_bytes=12,
    stored_events=13,
    stored_bytes=14,
    pending_events=15,
    sink_health=Health.GOOD,
    sink_cause="",
    spool_failure="",
    spool_full=False,
)


def alone(counters: Counters, state: State = STATE) -> ServerSnapshot:
    return ServerSnapshot(1, {1: Snapshot(1, counters, state, measure_process(), stopping=False)})


def read(counters: Counters, state: State = STATE) -> dict[str, float]:
    """Return every sample of a server of one process by its name and labels."""
    return read_all(alone(counters, state))


def read_all(server: ServerSnapshot) -> dict[str, float]:
    """Return every sample by its name and labels."""
    text = render(server).decode()
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_counter_is_shown_by_its_name() -> None:
    counters = Counters(
        requests=Counter({200: 1, 413: 2}),
        outcomes=Counter({Verdict.DELIVERED: 3, Verdict.DEAD: 4, Verdict.REFUSED: 2, Verdict.DROPPED: 1}),
        crowded=Counter({Overload.NEW_REQUEST: 5}),
        denied=Counter({Kind.DEVICE: 6}),
    )
    labelled = (
        "requests",
        "outcomes",
        "crowded",
        "clients",
        "denied",
        "key_fetches",
        "key_fetch_failures",
        "keys_fetched_at",
    )
    plain = [field.name for field in fields(Counters) if field.name not in labelled]
    for value, name in enumerate(plain, start=100):
        setattr(counters, name, value)
    samples = read(counters)
    ours = [value for name, value in samples.items() if name.startswith("forebay_")]
    shown = sorted(value for value in ours if 100 <= value < 100 + len(plain))
    assert shown == list(range(100, 100 + len(plain)))
    assert samples["forebay_events_accepted_total"] == counters.accepted
    assert samples["forebay_events_rejected_total"] == counters.rejected
    assert samples["forebay_events_uncorrected_total"] == counters.uncorrected
    assert samples["forebay_events_unavailable_total"] == counters.unavailable
    assert samples["forebay_commit_failures_total"] == counters.commit_failures
    assert samples["forebay_bulks_in_flight"] == counters.bulks_in_flight
    assert samples["forebay_requests_total[200]"] == 1
    assert samples["forebay_requests_total[413]"] == 2
    assert samples["forebay_outcomes_total[delivered]"] == 3
    assert samples["forebay_outcomes_total[dead]"] == 4
    assert samples["forebay_outcomes_total[refused]"] == 2
    assert samples["forebay_outcomes_total[dropped]"] == 1
    assert samples["forebay_crowded_total[new_request]"] == 5
    assert samples["forebay_denied_total[device]"] == 6
    assert samples["forebay_denial_failures_total"] == counters.denial_failures
    assert samples["forebay_denials"] == counters.denials


def test_the_state_is_shown() -> None:
    samples = read(Counters())
    assert [samples[f"forebay_{name}"] for name in ("channel_events", "channel_bytes")] == [11, 12]
    assert [samples[f"forebay_{name}"] for name in ("spool_events", "spool_bytes", "pending_events")] == [13, 14, 15]


@pytest.mark.parametrize(
    ("state", "sink_up", "spool_up"),
    [
        (STATE, 1, 1),
        (STATE._replace(sink_health=Health.FAILED), 0, 1),
        (STATE._replace(sink_health=Health.PAUSED), 0, 1),
        (STATE._replace(spool_failure="x"), 1, 0),
        (STATE._replace(spool_full=True), 1, 0),
    ],
)
def test_a_sink_or_a_spool_that_takes_nothing_is_shown_as_down(state: State, sink_up: int, spool_up: int) -> None:
    samples = read(Counters(), state)
    assert (samples["forebay_sink_up"], samples["forebay_spool_up"]) == (sink_up, spool_up)


def test_the_version_and_the_memory_of_the_process_are_shown() -> None:
    samples = read(Counters())
    assert samples[f"forebay_info[{__version__}]"] == 1
    assert samples["process_resident_memory_bytes"] > 0


def test_every_metric_has_a_help_text() -> None:
    text = render(alone(Counters())).decode()
    helps = [line for line in text.splitlines() if line.startswith("# HELP forebay_")]
    assert helps
    assert all(len(line.split(maxsplit=3)) == 4 for line in helps)


def test_the_cause_of_a_pause_is_shown_as_a_label() -> None:
    paused = STATE._replace(sink_health=Health.PAUSED, sink_error_type="security_exception")
    assert read(Counters(), paused)["forebay_sink_paused[security_exception]"] == 1
    failed = STATE._replace(sink_health=Health.FAILED, sink_error_type="unreachable")
    for state in (STATE, failed):
        assert not any(name.startswith("forebay_sink_paused") for name in read(Counters(), state))


def test_the_limit_of_bulks_in_flight_and_the_number_of_indices_on_hold_are_shown() -> None:
    holds = (HoldState("a", 0, "", "", ""), HoldState("b", 0, "", "", ""))
    samples = read(Counters(unexpected_answers=7), STATE._replace(holds=holds, bulks_in_flight_max=8))
    assert samples["forebay_indices_on_hold"] == 2
    assert samples["forebay_bulks_in_flight_max"] == 8
    assert samples["forebay_unexpected_answers_total"] == 7


def two_workers(first: State = STATE, second: State = STATE) -> ServerSnapshot:
    """Return a server of three workers, two of which answer."""
    accepted = {1: 5, 3: 7}
    snapshots = {
        number: Snapshot(
            number,
            Counters(accepted=accepted[number], bulks_in_flight=number, requests=Counter({200: number})),
            state,
            {"process_open_fds": 10.0 + number},
            stopping=False,
        )
        for number, state in ((1, first), (3, second))
    }
    return ServerSnapshot(3, snapshots, is_supervised=True)


def test_one_process_is_shown_without_a_label_for_it() -> None:
    samples = read(Counters(accepted=5))
    assert samples["forebay_events_accepted_total"] == 5
    assert (samples["forebay_workers"], samples["forebay_workers_up"]) == (1, 1)


def test_the_counters_of_several_workers_are_shown_by_worker_so_that_no_sum_falls_at_a_restart() -> None:
    samples = read_all(two_workers())
    assert {name: value for name, value in samples.items() if name.startswith("forebay_events_accepted")} == {
        "forebay_events_accepted_total[1]": 5,
        "forebay_events_accepted_total[3]": 7,
    }
    assert samples["forebay_requests_total[200][3]"] == 3
    assert samples["process_open_fds[1]"] == 11
    assert samples["process_open_fds[3]"] == 13


def test_a_gauge_is_the_sum_of_the_workers_that_answer() -> None:
    samples = read_all(two_workers(STATE, STATE._replace(pending_events=100)))
    assert samples["forebay_pending_events"] == 115
    assert samples["forebay_channel_events"] == 22
    assert samples["forebay_bulks_in_flight"] == 4


def test_a_worker_that_does_not_answer_is_counted_as_missing() -> None:
    samples = read_all(two_workers())
    assert (samples["forebay_workers"], samples["forebay_workers_up"]) == (3, 2)


@pytest.mark.parametrize(
    ("state", "sink_up", "spool_up"),
    [(STATE._replace(sink_health=Health.FAILED), 0, 1), (STATE._replace(spool_full=True), 1, 0)],
)
def test_a_single_worker_whose_sink_or_spool_takes_nothing_is_shown(state: State, sink_up: int, spool_up: int) -> None:
    samples = read_all(two_workers(STATE, state))
    assert (samples["forebay_sink_up"], samples["forebay_spool_up"]) == (sink_up, spool_up)


def test_the_worker_of_an_orphan_counts_among_the_events_and_not_among_the_workers() -> None:
    full = STATE._replace(stored_events=5, spool_full=True)
    snapshots = {
        number: Snapshot(number, Counters(), state, {}, stopping=False) for number, state in ((1, STATE), (4, full))
    }
    samples = read_all(ServerSnapshot(1, snapshots, is_supervised=True))
    assert (samples["forebay_workers"], samples["forebay_workers_up"]) == (1, 1)
    assert samples["forebay_spool_events"] == STATE.stored_events + 5
    assert samples["forebay_spool_up"] == 1
    assert samples["forebay_commits_total[4]"] == 0


def test_the_entries_of_the_denial_list_are_those_that_every_worker_has_read() -> None:
    snapshots = {
        number: Snapshot(number, Counters(denials=denials), STATE, {}, stopping=False)
        for number, denials in ((1, 7), (2, 5), (3, 0))
    }
    assert read_all(ServerSnapshot(2, snapshots, is_supervised=True))["forebay_denials"] == 5
    assert read_all(ServerSnapshot(3, {}, is_supervised=True))["forebay_denials"] == 0


def test_the_keys_of_providers_are_counted_by_issuer_and_as_old_as_in_the_worker_with_the_oldest() -> None:
    now = time.time()
    one = Counters(key_fetches=Counter({"a": 3}), key_fetch_failures=Counter({"a": 1}), keys_fetched_at={"a": now - 9})
    two = Counters(key_fetches=Counter({"a": 4, "b": 1}), keys_fetched_at={"a": now - 700, "b": now})
    snapshots = {
        number: Snapshot(number, counters, STATE, {}, stopping=False) for number, counters in ((1, one), (2, two))
    }
    samples = read_all(ServerSnapshot(2, snapshots, is_supervised=True))
    assert samples["forebay_key_fetches_total[a][1]"] == 3
    assert samples["forebay_key_fetches_total[b][2]"] == 1
    assert samples["forebay_key_fetch_failures_total[a][1]"] == 1
    assert 700 <= samples["forebay_keys_age_seconds[a]"] < 760
    assert samples["forebay_keys_age_seconds[b]"] < 60


@pytest.mark.parametrize(
    ("clients", "shown"),
    [
        ([["10.0.0.1"], ["10.0.0.1"], []], {"forebay_sole_client[10.0.0.1]": 1}),
        ([["::1"]], {"forebay_sole_client[::1]": 1}),
        ([["10.0.0.1", "10.0.0.2"]], {}),
        ([["10.0.0.1"], ["10.0.0.2"]], {}),
        ([["8.8.8.8"]], {}),
        ([[]], {}),
    ],
)
def test_a_private_address_is_shown_if_all_events_came_from_it(
    clients: list[list[str]], shown: dict[str, float]
) -> None:
    snapshots = {
        number: Snapshot(number, Counters(clients=each), STATE, {}, stopping=False)
        for number, each in enumerate(clients, 1)
    }
    samples = read_all(ServerSnapshot(len(clients), snapshots, is_supervised=True))
    assert {name: value for name, value in samples.items() if "sole_client" in name} == shown
