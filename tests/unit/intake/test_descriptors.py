"""How many connections fit into a process's limit of file descriptors; each in a process of its own."""

import subprocess
import sys

import pytest

from forebay.intake.descriptors import DESCRIPTORS_RESERVED

SCRIPT = """
import resource
from forebay.intake.descriptors import fit_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(fit_connections({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def fit(wanted: int, soft: int, hard: int) -> tuple[list[int], str]:
    """Return what a process says that starts with these limits: connections, soft limit, hard limit; and its log."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(wanted=wanted, soft=soft, hard=hard)],
        capture_output=True,
        text=True,
        check=True,
    )
    *log, numbers = done.stdout.splitlines()
    return [int(number) for number in numbers.split()], "".join(log)


def test_a_soft_limit_is_raised_to_what_the_connections_need() -> None:
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
