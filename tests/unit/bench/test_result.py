"""The limit that a measurement shows."""

import pytest

from forebay.bench.load import Tally
from forebay.bench.result import Machine, Measurement, evaluate, find_limit

QUIET = Measurement(
    elapsed_s=10.0,
    tally=Tally(answered=1_000, latencies_s=[0.001] * 98 + [0.05] * 2),
    server_s=4.0,
    load_s=3.0,
    busy_share=0.4,
    commits=100,
    delivered=1_000,
    written_bytes=250_000,
    peak_bytes=70_000_000,
    sync_s=0.01,
)
MACHINE = Machine(cores=4, workers=1, has_real_sink=False)


@pytest.mark.parametrize(
    ("measured", "machine", "limit", "advice"),
    [
        (QUIET, MACHINE, "none of these", "more clients"),
        (QUIET._replace(server_s=9.5), MACHINE, "the server's processor, at 95% of a core", "FOREBAY_WORKERS=2"),
        (QUIET._replace(server_s=38.0), MACHINE._replace(workers=4), "the server's processor", "faster cores"),
        (QUIET._replace(server_s=9.5), MACHINE._replace(workers=2), "none of these", "more clients"),
        (QUIET._replace(commits=800), MACHINE, "the disk's sync, with 80% of the time, 10 ms each", "faster syncs"),
        (QUIET._replace(load_s=9.6), MACHINE, "the load itself, at 96% of a core", "one process of clients"),
        (QUIET._replace(busy_share=0.97), MACHINE, "this machine's processors", "clients elsewhere"),
        (
            QUIET._replace(delivered=500, server_s=9.5),
            MACHINE._replace(has_real_sink=True),
            "the sink, which took 50 events/s",
            "FOREBAY_BULK_WORKERS",
        ),
        (QUIET._replace(delivered=500), MACHINE, "none of these", "more clients"),
    ],
)
def test_the_limit_is_the_part_that_had_no_time_left(
    measured: Measurement, machine: Machine, limit: str, advice: str
) -> None:
    found, way_on = find_limit(measured, machine)
    assert found.startswith(limit)
    assert advice in way_on


def test_figures_are_for_a_second_and_for_an_event() -> None:
    result = evaluate(QUIET, MACHINE)
    assert (result.events_per_s, result.events_per_processor_s, result.written_bytes_per_event) == (100, 250, 250)
    assert (result.p50_ms, result.p99_ms) == (1.0, 50.0)
    assert (result.server_cores, result.load_cores, result.commits_per_s, result.delivered_per_s) == (0.4, 0.3, 10, 100)


def test_one_answer_is_enough() -> None:
    assert evaluate(QUIET._replace(tally=Tally(answered=1, latencies_s=[0.002])), MACHINE).p99_ms == 2.0
