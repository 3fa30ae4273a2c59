"""One process of a worker, as the supervisor sees it: forked, pinged, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

import structlog

from forebay.workers.link import MESSAGE_BYTES_MAX, Report, decode_report, encode, make_link

log = structlog.get_logger("forebay.worker")

EXIT_FAILED = 1
PINGS_UNANSWERED_MAX = 6
"""A worker hangs if it leaves so many pings in a row unanswered.

Pings are counted and not seconds: a pause of the whole server is no fault of its workers.
"""

SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)
"""The signals that the supervisor handles."""


class ProcessEnd(NamedTuple):
    """The end of a process, and its uptime; the exit code is negative for a signal."""

    exit_code: int
    uptime_s: float

    @property
    def cause(self) -> str:
        """Return the cause in words."""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        return f"signal {signal.Signals(-self.exit_code).name}"


class Child:
    """A worker's process.

    Attributes:
        pid: its number.
        link: the supervisor's end of the socket to it.
        is_serving: whether it has reported that it serves.
    """

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self.link = link
        self.is_serving = False
        self._pings_unanswered = 0
        self._began_at = time.monotonic()

    @property
    def hangs(self) -> bool:
        """Return whether it serves and left the last pings unanswered."""
        return self._pings_unanswered >= PINGS_UNANSWERED_MAX

    def ping(self, left_spools: tuple[str, ...]) -> None:
        """Ask whether it is well, unless it has yet to start: a long repair of its spool is no reason to end it."""
        if self.is_serving:
            self._pings_unanswered += 1
            # One that hangs does not read either.
            with contextlib.suppress(OSError):
                self.link.send(encode(left_spools))

    def read_reports(self) -> Iterator[Report]:
        """Read its messages; each one answers all pings before it."""
        with contextlib.suppress(OSError):
            while message := self.link.recv(MESSAGE_BYTES_MAX):
                self._pings_unanswered = 0
                yield decode_report(message)

    def find_end(self) -> ProcessEnd | None:
        """Return its end, or None while it runs; to be called until it has ended and not again."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return ProcessEnd(os.waitstatus_to_exitcode(status), time.monotonic() - self._began_at) if pid else None

    def end(self) -> None:
        """Let it end in order."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, and ping it no more: a disk that hangs may delay its end for long."""
        self.is_serving = False
        self._pings_unanswered = 0
        os.kill(self.pid, signal.SIGKILL)


def fork(name: str, work: Callable[[socket.socket], int], release: Callable[[], None]) -> Child:
    """Start a process that does `work` with its end of the socket, and ends with the exit code which that returns.

    `release` closes, in the new process, the files that belong to the supervisor alone. `ps` and `top` show `name`.

    Raises:
        OSError: the system has no room for another process.
    """
    ours, theirs = make_link()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal that came between the fork and `_be_child` would be handled in the supervisor's way.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            ours.close()
            _be_child(name, lambda: work(theirs), release)
    except OSError:
        ours.close()
        raise
    finally:
        # Both only in the supervisor: a child does not return.
        theirs.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return Child(pid, ours)


def _be_child(name: str, work: Callable[[], int], release: Callable[[], None]) -> NoReturn:
    exit_code = EXIT_FAILED
    try:
        # Ctrl-C in a terminal goes to a whole process group, and a worker that gets a second signal ends at once.
        os.setpgid(0, 0)
        with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:  # noqa: PTH123 - no file
            comm.write(name)
        release()
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        exit_code = work()
    except BaseException:
        log.exception("worker_crashed")
    finally:
        # Not by an exception: the supervisor's own clean-up lies above on the stack.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exit_code)
