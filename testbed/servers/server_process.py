"""A server that is no part of the project, as a process that a test can start, kill, pause and start again."""

import abc
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from testbed.servers.guarded_folder import GuardedFolder

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.1
LOG_TAIL_LINES = 40


class ServerStartError(Exception):
    """The server did not become ready; the message ends with the end of its log."""


class ServerProcess(abc.ABC):
    """A server in a process group and a folder of its own.

    All of it is gone after `close`, and also if the test run is killed before that.
    """

    title: ClassVar[str]

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._guarded = GuardedFolder(f"forebay-{self.title.lower()}-")
        self._folder = self._guarded.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """The address of the server, which stays the same from start to start."""

    @abc.abstractmethod
    def _is_ready(self) -> bool:
        """Return whether the server answers."""

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.url} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there; a paused one is."""
        return self._process is not None and self._process.poll() is None

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the server does all that it is for.

        Raises:
            ServerStartError: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if not self.is_running:
                raise self._start_error("ended before it was ready")
            if time.monotonic() > deadline:
                raise self._start_error(f"was not ready within {timeout_s:g} s")
            time.sleep(POLL_INTERVAL_S)

    def stop(self) -> None:
        """End the server the orderly way; if that takes too long, kill it."""
        # A paused process takes the signal to end only once it runs again.
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            self._reap(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        self._signal(signal.SIGKILL)
        self._reap(STOP_TIMEOUT_S)

    def pause(self) -> None:
        """Freeze the server: connections are still accepted by the kernel, but nothing is answered."""
        self._signal(signal.SIGSTOP)
        if self.is_running:
            # The signal stops one thread after the other; until the last, a request could still be answered.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its data."""
        try:
            self.stop()
        finally:
            self._guarded.remove()

    def log_tail(self) -> str:
        """Return the end of the console log since the last start, without the frames of Java stack traces."""
        log = (self._folder / "console.log").read_text(errors="replace")
        lines = [line for line in log.splitlines() if not line.startswith("\tat ")]
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _run(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        account: pwd.struct_passwd | None = None,
    ) -> None:
        """Start the process with exactly this environment, in the name of an account if one is given."""
        if self.is_running:
            raise RuntimeError(f"{self.url} is running already")
        with (self._folder / "console.log").open("wb") as log:
            # A session of its own makes it a process group of its own, which gets the signals.
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
            )
        self._guarded.guard(self._process.pid)

    def _wait_or_kill(self, timeout_s: float) -> None:
        try:
            self.wait_ready(timeout_s)
        except BaseException:
            self.kill()
            raise

    def _start_error(self, problem: str) -> ServerStartError:
        return ServerStartError(f"{self.title} at {self.url} {problem}; the end of its log:\n{self.log_tail()}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _reap(self, timeout_s: float) -> None:
        if self._process is not None:
            self._process.wait(timeout_s)
            self._process = None
            self._guarded.unguard()
