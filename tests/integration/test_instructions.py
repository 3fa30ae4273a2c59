"""The processor instructions of an event's way in, counted by a real valgrind."""

import shutil

from benchmarks import instructions
from testbed.servers.fixtures import report_missing


def test_the_way_in_takes_as_many_instructions_as_on_record() -> None:
    if shutil.which("valgrind") is None:
        report_missing("valgrind is not installed")
    recorded = instructions.read_record()
    if recorded is None:
        report_missing(f"there is no record for {instructions.INTERPRETER}: run make ratchet")
    assert instructions.judge(instructions.measure(), recorded) == []
