"""The processes of a measurement."""

import subprocess
import sys
from pathlib import Path

import pytest

from forebay.bench.processes import Processors, measure_processors, share_busy

ENDED = "the server of the measurement has ended early"

# In a process without threads, which may fork.
PARENT = """
import os, sys, time
from pathlib import Path
from forebay.bench.processes import BenchFailed, forked, has_ended, measure_usage

def work():
    if sys.argv[1] == "fail":
        raise BenchFailed("the port is taken")
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    os.write(1, b"worked")
    time.sleep(60)

log = Path(sys.argv[2])
with forked(work, log) as pid:
    while not (log.exists() and log.read_text()):
        time.sleep(0.01)
    if sys.argv[1] == "fail":
        while not has_ended(pid):
            time.sleep(0.01)
    else:
        usage = measure_usage(pid)
        print(usage.processor_s >= 0.08, usage.peak_bytes > 1_000_000)
try:
    measure_usage(pid)
except BenchFailed as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("deed", "logged", "said"), [("work", "worked", ["True True", ENDED]), ("fail", "the port is taken", [ENDED])]
)
def test_a_process_is_measured_and_gone_at_the_end(tmp_path: Path, deed: str, logged: str, said: list[str]) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", PARENT, deed, str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == said
    assert log.read_text().splitlines()[0] == logged


def test_the_share_of_all_processors_is_between_two_moments() -> None:
    assert share_busy(Processors(100, 100), Processors(175, 125)) == 0.75
    now = measure_processors()
    assert share_busy(now, now) == 0
