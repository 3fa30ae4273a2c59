"""What was freed in the middle of the heap goes back to the system."""

import asyncio
import os
import subprocess
import sys

import pytest

from forebay import memory

PROBE = """
import asyncio, os
from forebay.memory import give_back
from testbed.servers.process_usage import resident_bytes

async def main():
    entries = [os.urandom(700) for _ in range(100_000)]
    full = resident_bytes(os.getpid())
    kept = entries[::100]
    del entries
    freed = resident_bytes(os.getpid())
    giving = asyncio.create_task(give_back(interval_s=0.01))
    await asyncio.sleep(0.1)
    print(full, freed, resident_bytes(os.getpid()), giving.done(), len(kept))

asyncio.run(main())
"""


def test_holes_in_the_heap_are_given_back() -> None:
    # In a process of its own: what other tests have left in the heap would blur the figures.
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    full, freed, given_back, ended, _ = done.stdout.split()
    assert int(full) - int(freed) < 20_000_000, "nothing was kept, and there is nothing to see here"
    assert int(freed) - int(given_back) > 50_000_000
    assert ended == "False"


async def test_with_another_allocator_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_find_trim", lambda: None)
    await asyncio.wait_for(memory.give_back(), 1)
