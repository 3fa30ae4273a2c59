"""Requests to the operating system, each in a process of its own: other tests would blur the figures."""

import asyncio
import os
import subprocess
import sys

import pytest

from forebay import process
from forebay.process import DESCRIPTORS_RESERVED

PROBE = """
import asyncio, os
from forebay.process import give_back_memory
from testbed.servers.process_usage import resident_bytes

async def main():
    entries = [os.urandom(700) for _ in range(100_000)]
    full = resident_bytes(os.getpid())
    kept = entries[::100]
    del entries
    freed = resident_bytes(os.getpid())
    giving = asyncio.create_task(give_back_memory(interval_s=0.01))
    await asyncio.sleep(0.1)
    print(full, freed, resident_bytes(os.getpid()), giving.done(), len(kept))

asyncio.run(main())
"""

FAULTS = """
import resource
from forebay.process import keep_freed_memory

def use_bodies():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bodies = [b"x" * 900_000 for _ in range(10)]
        del bodies
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = use_bodies()
keep_freed_memory()
use_bodies()
print(given_back, use_bodies())
"""

SCRIPT = """
import resource
from forebay.process import fit_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(fit_connections({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def run_alone(script: str) -> str:
    """Run a script in a process of its own; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_holes_in_the_heap_are_given_back() -> None:
    full, freed, given_back, ended, _ = run_alone(PROBE).split()
    assert int(full) - int(freed) < 20_000_000, "nothing was kept, and there is nothing to see here"
    assert int(freed) - int(given_back) > 50_000_000
    assert ended == "False"


def test_the_memory_of_bodies_is_used_again_and_not_cleared_by_the_kernel_each_time() -> None:
    given_back, kept = map(int, run_alone(FAULTS).split())
    assert given_back > 10_000, "malloc keeps it by itself, and there is nothing to see here"
    assert kept < 100


async def test_with_another_allocator_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_in_allocator", lambda _: None)
    process.keep_freed_memory()
    await asyncio.wait_for(process.give_back_memory(), 1)


def fit(wanted: int, soft: int, hard: int) -> tuple[list[int], str]:
    """Start a process with these limits; return its connections, soft limit and hard limit, and its log."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(wanted=wanted, soft=soft, hard=hard)],
        capture_output=True,
        text=True,
        check=True,
    )
    *log, numbers = done.stdout.splitlines()
    return [int(number) for number in numbers.split()], "".join(log)


def test_a_soft_limit_is_raised_as_far_as_the_connections_need() -> None:
    numbers, log = fit(500, 256, 2_000)
    assert numbers == [500, 500 + DESCRIPTORS_RESERVED, 2_000]
    assert log == ""


def test_a_limit_that_is_high_enough_is_left_alone() -> None:
    assert fit(500, 1_500, 2_000) == ([500, 1_500, 2_000], "")


@pytest.mark.parametrize(("hard", "possible"), [(512, 512 - DESCRIPTORS_RESERVED), (100, 25)])
def test_under_a_hard_limit_there_are_fewer_connections_and_a_warning(hard: int, possible: int) -> None:
    numbers, log = fit(10_000, min(hard, 64), hard)
    assert numbers == [possible, hard, hard]
    assert "fewer_connections" in log
