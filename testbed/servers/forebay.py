"""The real Forebay as a process that a test can start, stop, kill and start again."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from testbed.servers.guarded_folder import GuardedFolder
from testbed.servers.ports import HOST, free_ports

SECRET = "the key of the tests, which guards nothing at all"
COMMAND = [str(Path(sys.executable).parent / "forebay"), "serve"]

WORKER_NAME = "forebay-"
"""The beginning of a worker's name in the list of processes; its number follows."""

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.02
POLL_TIMEOUT_S = 2.0
TOKEN_S = 3600


class ForebayStartError(Exception):
    """The server did not become ready; the message ends with its log.

    Attributes:
        exit_code: of the process, None if it did not end by itself.
    """

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ForebayServer:
    """One server on loopback; its port and its folder, with the spool, the log and a `.env`, stay from start to start.

    Its environment holds the variables set here, the given settings, and nothing else. The process is gone after
    `close`, and also if the test run is killed before that.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        self.folder = folder
        self._command = command
        self.settings = {
            "SERVER_PORT": str(free_ports(1)[0]),
            "FOREBAY_HOST": HOST,
            "JWT_SECRET": SECRET,
            "DATABASE_URL": f"sqlite://{folder / 'spool.db'}",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        # Only for its guard: the folder of the test outlives the test, for those who look for the cause of a failure.
        self._guarded = GuardedFolder("forebay-server-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        return int(self.settings["SERVER_PORT"])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.url} is not running")
        return self._process.pid

    @property
    def worker_pids(self) -> dict[int, int]:
        """The processes of several workers, by their number; the one that empties orphans has 0."""
        found = {}
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            # One that has ended meanwhile, or has not become a worker yet, is none.
            with contextlib.suppress(OSError, ValueError):
                number = Path(f"/proc/{pid}/comm").read_text().strip().removeprefix(WORKER_NAME)
                found[0 if number == "orphans" else int(number)] = int(pid)
        return found

    @property
    def log(self) -> str:
        """All that the server has written to standard error since its first start."""
        path = self.folder / "forebay.err"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def output(self) -> str:
        """All that the server has written to standard output since its first start."""
        path = self.folder / "forebay.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def token(self, sub: str = "tester", scope: str = Scope.WRITE, lifetime_s: float = TOKEN_S) -> str:
        """Return a token with scopes, separated by spaces."""
        return make_token(self.settings["JWT_SECRET"], sub, scope.split(), lifetime_s)

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the server and wait until it answers.

        Raises:
            ForebayStartError: it ended, or did not answer in time.
        """
        if self._process is not None:
            raise RuntimeError(f"{self.url} is running already")
        with (self.folder / "forebay.out").open("ab") as output, (self.folder / "forebay.err").open("ab") as log:
            # A session of its own makes it a process group of its own, which the guard kills.
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._guarded.guard(self._process.pid)
            self._wait_ready(time.monotonic() + timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """End the server the orderly way and return its exit code.

        Raises:
            TimeoutError: it did not end in time, and was killed.
        """
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's process."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the end of the server and return its exit code.

        Raises:
            TimeoutError: it did not end in time, and was killed.
        """
        process = self._process
        if process is None:
            raise RuntimeError(f"{self.url} is not running")
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.url} did not end within {timeout_s:g} s; its log:\n{self.log}") from None
        self._forget()
        return process.returncode

    def wait_end(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Wait until the server gives up by itself, which it always does with a `ForebayStartError`.

        Raises:
            ForebayStartError: it has ended.
            subprocess.TimeoutExpired: it has not ended in time.
        """
        if self._process is not None:
            self._process.wait(timeout_s)
            code = self._process.returncode
            self._forget()
            raise ForebayStartError(f"{self.url} ended with {code}; its log:\n{self.log}", code)

    def kill(self) -> None:
        """End the server with all its workers at once, as a power cut would; do nothing if none runs."""
        if self._process is not None:
            workers = self.worker_pids if self._process.poll() is None else {}
            # First, so that it starts no worker again.
            self._process.kill()
            self._process.wait()
            for pid in workers.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_ended(workers.values())
            self._forget()

    def close(self) -> None:
        """End the server for good, in any state."""
        try:
            self.kill()
        finally:
            self._guarded.remove()

    def _wait_ready(self, deadline: float) -> None:
        while not self._answers():
            code = None if self._process is None else self._process.poll()
            if code is not None:
                raise ForebayStartError(f"{self.url} ended with {code}; its log:\n{self.log}", code)
            if time.monotonic() > deadline:
                raise ForebayStartError(f"{self.url} did not answer in time; its log:\n{self.log}", None)
            time.sleep(POLL_INTERVAL_S)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=POLL_TIMEOUT_S)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().read() == b"pong"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _forget(self) -> None:
        self._process = None
        self._guarded.unguard()


def wait_ended(pids: Iterable[int], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Wait until processes have ended that need not be children of this one.

    Raises:
        TimeoutError: one of them has not ended in time.
    """
    deadline = time.monotonic() + timeout_s
    for pid in pids:
        while is_running(pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {pid} has not ended within {timeout_s:g} s")
            time.sleep(POLL_INTERVAL_S)


def is_running(pid: int) -> bool:
    """Return whether there is such a process; a zombie does not count."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
