"""A test run that is killed leaves neither a server nor its data behind."""

import subprocess
import sys
import time
from pathlib import Path

from testbed.servers.guarded_folder import GuardedFolder

ROOT = Path(__file__).resolve().parents[2]
# A test run with a server in a guarded folder. The server shares its standard output, so that the output ends only
# when the server has ended, too.
TEST_RUN = """
import subprocess, sys, time
from testbed.servers.guarded_folder import GuardedFolder
folder = GuardedFolder("forebay-guarded-")
server = subprocess.Popen(["sleep", "300"], start_new_session=True)
folder.guard(server.pid)
print(folder.path, flush=True)
time.sleep(300)
"""


def wait_until_gone(path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while path.exists():
        assert time.monotonic() < deadline, f"{path} is still there"
        time.sleep(0.02)


def test_killed_test_run_leaves_neither_process_nor_folder() -> None:
    with subprocess.Popen([sys.executable, "-c", TEST_RUN], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        assert folder.is_dir()

        run.kill()
        run.communicate(timeout=10)

    wait_until_gone(folder, timeout_s=10)


def test_removed_folder_is_gone() -> None:
    folder = GuardedFolder("forebay-guarded-")
    (folder.path / "data").mkdir()

    folder.remove()

    assert not folder.path.exists()
