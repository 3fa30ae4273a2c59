"""`forebay bench`: a real server under a real load, and nothing of it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import COMMAND

TIMEOUT_S = 120.0


def environment(folder: Path, **settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite://{folder}/spool.db", **settings}


def bench(folder: Path, *arguments: str, **settings: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [COMMAND[0], "bench", "--seconds", "2", "--json", *arguments],
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_measures_single_events_and_batches_and_leaves_nothing(tmp_path: Path, workers: str) -> None:
    single, batches = bench(tmp_path, FOREBAY_WORKERS=workers, OPEN_SEARCH_DNS="http://127.0.0.1:9")
    for load in (single, batches):
        assert load["events_per_s"] > 0
        assert load["events_per_processor_s"] > 0
        assert 0 < load["p50_ms"] <= load["p99_ms"]
        assert load["commits_per_s"] > 0
        assert load["peak_memory_bytes"] > 10_000_000
        assert load["refused_events"] == 0
        assert load["limit"]
    assert batches["events_per_processor_s"] > single["events_per_processor_s"]
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [COMMAND[0], "bench", "--seconds", "60"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + TIMEOUT_S
    while not list(tmp_path.glob(".forebay-bench-*/spool.db")):
        assert time.monotonic() < deadline, "the server of the measurement did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, said) == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_with_the_real_sink_its_index_is_deleted_afterwards(tmp_path: Path, opensearch: OpenSearchAddress) -> None:
    single, _ = bench(tmp_path, "--sink", OPEN_SEARCH_DNS=opensearch.url, FOREBAY_BULK_INTERVAL_S="0.2")
    assert single["delivered_per_s"] > 0
    with urllib.request.urlopen(f"{opensearch.url}/_cat/indices/events_bench-*?format=json") as answer:  # noqa: S310 - the test's own
        assert json.load(answer) == []
    assert list(tmp_path.iterdir()) == []
