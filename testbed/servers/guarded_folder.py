"""A temporary folder for a server under test that outlives neither the server's test nor the test run."""

import subprocess
import tempfile
from pathlib import Path

# Reads until the other end of its standard input is closed: by `remove`, or by the kernel when the test run dies,
# however it dies. The loop is for files that the killed server wrote while `rm` was at work.
GUARD = """
read -r _
if [ -s "$1/pid" ]; then kill -KILL -- "-$(cat "$1/pid")"; fi
for _ in $(seq 50); do
    rm -rf -- "$1" 2>/dev/null && exit 0
    sleep 0.1
done
echo "could not remove $1" >&2
exit 1
"""
REMOVE_TIMEOUT_S = 30


class GuardedFolder:
    """A folder with a guard process that removes it, after killing the process group named in it.

    The guard cleans up after a test run that was itself killed and could clean up nothing.
    """

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        # In a session of its own, so that Ctrl-C in the terminal does not reach it.
        self._guard = subprocess.Popen(
            ["bash", "-c", GUARD, "guard", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def guard(self, group: int) -> None:
        """Have the guard kill this process group, should the test run die."""
        (self.path / "pid").write_text(str(group))

    def unguard(self) -> None:
        """Tell the guard that the process group is gone."""
        (self.path / "pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        # Closes the guard's standard input, and so sets it off.
        self._guard.communicate(timeout=REMOVE_TIMEOUT_S)
        if self._guard.returncode != 0:
            raise RuntimeError(f"the guard of {self.path} ended with {self._guard.returncode}")
