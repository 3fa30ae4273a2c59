import os
from pathlib import Path

import pytest

from benchmarks import building
from benchmarks.candidates import PEERS

VERSIONS = PEERS / "rust" / "versions.lock"
CARGO = """#!/bin/sh
printf '[[package]]\\nname = "x"\\nversion = "1.0.0"\\nsource = "registry+of-cargo"\\nchecksum = "0"\\n' > Cargo.lock
echo called >> calls
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The locked versions, beside a cargo that locks something else.
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "cargo").write_text(CARGO)
    (tools / "cargo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    (tmp_path / "versions.lock").write_text(VERSIONS.read_text())
    return tmp_path


def test_the_locked_versions_get_the_source_that_cargo_names(sources: Path) -> None:
    building.restore_lock(sources)
    lines = (sources / "Cargo.lock").read_text().splitlines()
    kept = [line for line in lines if line != 'source = "registry+of-cargo"']
    assert kept == VERSIONS.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("checksum"):
            assert lines[number - 1].startswith("source")


def test_a_restored_lock_is_left_alone(sources: Path) -> None:
    building.restore_lock(sources)
    building.restore_lock(sources)
    assert (sources / "calls").read_text() == "called\n"


def test_the_committed_versions_name_no_registry() -> None:
    assert "source = " not in VERSIONS.read_text()


def test_a_missing_tool_is_a_reason_to_leave_a_collector_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(building, "BUILT", tmp_path)
    assert building.build(["disk", "benthos", "otel"]) == {
        "benthos": "go is not installed",
        "otel": "go is not installed",
    }
