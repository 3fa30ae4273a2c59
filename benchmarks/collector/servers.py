"""The OpenTelemetry Collector as a process that can be killed and started again on the same disk."""

from __future__ import annotations

import http.client
import os
import subprocess
import time
from pathlib import Path
from typing import Self

from testbed.servers.guarded_folder import GuardedFolder
from testbed.servers.ports import HOST, free_ports

HERE = Path(__file__).resolve().parent
START_WITHIN_S = 60.0
STOP_WITHIN_S = 60.0
POLL_S = 0.05


class Collector:
    """One collector on loopback; its port, its queue and its log stay from start to start.

    The process is gone after the block, and also if the run is killed before that.
    """

    def __init__(self, executable: Path, exporter: str, folder: Path, opensearch_url: str) -> None:
        """Prepare a collector; `exporter` names the file with the exporter's own settings."""
        self._port = free_ports(1)[0]
        self._command = [str(executable), *(f"--config={HERE / name}.yaml" for name in ("shared", exporter))]
        queue = folder / "queue"
        queue.mkdir()
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "SERVER_PORT": str(self._port),
            "QUEUE_DIRECTORY": str(queue),
            "OPEN_SEARCH_DNS": opensearch_url,
        }
        self._log = folder / "collector.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guarded = GuardedFolder("forebay-collector-")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.kill()
        finally:
            self._guarded.remove()

    @property
    def url(self) -> str:
        """The address that clients send to."""
        return f"http://{HOST}:{self._port}"

    @property
    def log(self) -> str:
        """All that it has written since its first start."""
        return self._log.read_text(errors="replace")

    def token(self) -> str:
        """Return what a client shows; this server does not look at it."""
        return "none"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guarded.guard(self._process.pid)
        deadline = time.monotonic() + START_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the collector did not come up; its log:\n{self.log}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_WITHIN_S)
            self._process = None
            self._guarded.unguard()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=POLL_S * 20)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True
