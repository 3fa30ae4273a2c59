"""The ratchet: a count of instructions beside its record."""

import json
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.instructions import judge


@pytest.mark.parametrize("ratio", [9.71, 10.0, 10.29])
def test_a_small_difference_is_no_complaint(ratio: float) -> None:
    assert judge({"single": ratio}, {"single": 10.0}) == []


def test_more_instructions_are_a_complaint_with_the_figures() -> None:
    (complaint,) = judge({"single": 10.4, "batch": 3.0}, {"single": 10.0, "batch": 3.0})
    assert complaint.startswith("single: 10.400 instead of 10.000 (+4.0%): the way in takes more instructions")


def test_a_gain_that_is_not_recorded_names_the_command_that_records_it() -> None:
    (complaint,) = judge({"single": 10.0, "batch": 2.9}, {"single": 10.0, "batch": 3.0})
    assert complaint.startswith("batch: 2.900 instead of 3.000 (-3.3%)")
    assert "make ratchet" in complaint


def test_a_record_only_sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"another interpreter": {"single": 1.0}}')
    monkeypatch.setattr(instructions, "RECORDS", path)
    assert instructions.read_record() is None
    instructions.record({"single": 10.0, "batch": 3.0})
    instructions.record({"single": 11.0, "batch": 2.0})
    assert instructions.read_record() == {"single": 10.0, "batch": 2.0}
    assert json.loads(path.read_text())["another interpreter"] == {"single": 1.0}
