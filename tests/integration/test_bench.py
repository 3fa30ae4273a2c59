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


OTHER_TOKENS = {"FOREBAY_JWT_ALGORITHM": "HS512", "FOREBAY_JWT_ISSUER": "us", "FOREBAY_JWT_AUDIENCE": "here"}


@pytest.mark.parametrize("settings", [{}, {"FOREBAY_WORKERS": "2", **OTHER_TOKENS}], ids=["usual", "all others"])
def test_it_measures_single_events_and_batches_and_leaves_nothing(tmp_path: Path, settings: dict[str, str]) -> None:
    single, batches = bench(tmp_path, OPEN_SEARCH_DNS="http://127.0.0.1:9", **settings)
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


def start(folder: Path) -> subprocess.Popen[str]:
    """Start a long measurement, and wait until its server is there."""
    process = subprocess.Popen(
        [COMMAND[0], "bench", "--seconds", "60"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + TIMEOUT_S
    while not list(folder.glob(".forebay-bench-*/spool.db")):
        assert time.monotonic() < deadline, "the server of the measurement did not start"
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path)
    process.send_signal(number)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, said) == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_its_processes_end_with_it_if_it_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path)
    # Until the load has begun: its process waits for the next one then.
    time.sleep(1.5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a process was left"
        time.sleep(0.1)


def test_an_opensearch_that_is_away_is_the_cause_that_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND[0], "bench", "--seconds", "2", "--sink"],
        cwd=tmp_path,
        env=environment(tmp_path, OPEN_SEARCH_DNS="http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "the sink took nothing" in done.stderr
    assert "yourself" not in done.stderr


def test_with_the_real_sink_its_index_is_deleted_afterwards(tmp_path: Path, opensearch: OpenSearchAddress) -> None:
    single, _ = bench(tmp_path, "--sink", OPEN_SEARCH_DNS=opensearch.url, FOREBAY_BULK_INTERVAL_S="0.2")
    assert single["delivered_per_s"] > 0
    with urllib.request.urlopen(f"{opensearch.url}/_cat/indices/events_bench-*?format=json") as answer:  # noqa: S310 - the test's own
        assert json.load(answer) == []
    assert list(tmp_path.iterdir()) == []
