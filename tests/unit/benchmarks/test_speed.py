import pytest

from benchmarks import speed


def run(number: int, candidate: str, events: int, per_cpu_s: float) -> speed.Run:
    return {
        "round": number,
        "candidate": candidate,
        "events_per_request": events,
        "requests_per_cpu_s": per_cpu_s / events,
    }


def test_turns_of_the_same_round_are_compared_in_events() -> None:
    runs = [
        run(1, "disk", speed.BATCH, 3000),
        run(1, "bare", speed.SINGLE, 1000),
        run(2, "bare", speed.SINGLE, 500),
        run(2, "disk", speed.BATCH, 2000),
    ]
    (finding,) = speed.findings(runs)
    assert finding.goal.title == "events in batches of 100, against bare requests"
    assert finding.values == pytest.approx([3, 4])


def test_nothing_is_compared_with_a_candidate_that_was_left_out() -> None:
    assert speed.findings([run(1, "disk", speed.SINGLE, 1000)]) == []
