"""`forebay bench` before it measures; `tests/integration/test_bench.py` measures."""

from __future__ import annotations

import json

import pytest

from forebay.bench import run as bench_run
from forebay.bench.processes import BenchFailed
from forebay.bench.result import Result
from unit.cli.running import Folder, Run

RESULT = Result(
    9_100, 9_400, 3.2, 9.9, 0.97, 0.5, 1.2, 280, 480, 70 << 20, 9_000, 0, "the disk's sync", "a faster disk"
)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench_run, "run", lambda *_, **__: (pair for pair in (("single events", RESULT), ("batches of 100", RESULT)))
    )


@pytest.mark.usefixtures("results")
def test_a_table_ends_with_the_limit_and_a_way_to_go_on(run: Run) -> None:
    result = run("bench")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["single", "events", "batches", "of", "100"]
    assert "9,100" in lines[1]
    assert lines[-1] == "batches of 100: the limit is the disk's sync. To go on: a faster disk"


@pytest.mark.usefixtures("results")
def test_json_has_one_object_for_each_load(run: Run) -> None:
    first, second = run("bench", "--json").json_lines()
    assert (first["load"], second["load"]) == ("single events", "batches of 100")
    assert first["events_per_s"] == 9_100
    assert json.dumps(first)


@pytest.mark.usefixtures("results")
def test_a_real_sink_is_announced(run: Run) -> None:
    assert "configured sink" in run("bench", "--sink").err


def test_the_time_is_bounded(run: Run) -> None:
    assert run("bench", "--seconds", "100000").code == 2


def test_a_server_that_does_not_start_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> object:
        raise BenchFailed("the server of the measurement did not start: no room")
        yield

    monkeypatch.setattr(bench_run, "run", fail)
    result = run("bench")
    assert (result.code, result.err) == (1, "forebay: the server of the measurement did not start: no room\n")


def test_a_folder_that_is_missing_is_named(run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite://{folder.path}/missing/spool.db")
    result = run("bench")
    assert result.code == 2
    assert result.err.startswith(f"forebay: DATABASE_URL: nothing can be written into {folder.path}/missing")
