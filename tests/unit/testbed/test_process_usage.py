import os

import pytest

from testbed.servers.process_usage import open_descriptors, peak_bytes, private_bytes, resident_bytes

NO_PROCESS = 2**22 + 1
"""More than Linux numbers processes."""


def test_a_process_that_runs_has_memory_and_files() -> None:
    assert resident_bytes(os.getpid()) > 1e6
    assert open_descriptors(os.getpid()) >= 3


def test_the_peak_of_a_process_is_at_least_the_memory_that_it_has() -> None:
    # The kernel counts memory by the processor, and both numbers are a little old.
    assert peak_bytes(os.getpid()) > 0.9 * resident_bytes(os.getpid())


@pytest.mark.parametrize("read", [resident_bytes, peak_bytes, private_bytes, open_descriptors])
def test_a_process_that_has_ended_has_nothing_to_read(read: object) -> None:
    assert callable(read)
    with pytest.raises(OSError, match=str(NO_PROCESS)):
        read(NO_PROCESS)
