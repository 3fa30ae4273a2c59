"""Segment's client for Node: fetched once by its lock file, and started as a process that sends calls."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

FOLDER = Path(__file__).parent / "segment"
CACHE = Path(__file__).resolve().parents[2] / ".cache"
FETCH_TIMEOUT_S = 300
END_TIMEOUT_S = 120.0


class NodeMissingError(Exception):
    """The client cannot be had on this machine; the message names in one line the missing part."""


class Sent(NamedTuple):
    """What the client has done.

    Attributes:
        events: those that it has delivered, as it sent them.
        lost: the reasons for which it has given up others.
        retries: how many requests it has sent once more.
    """

    events: list[dict[str, Any]]
    lost: list[str]
    retries: int


def install(cache: Path = CACHE) -> Path:
    """Return the folder of the fetched packages, fetching them the first time.

    Raises:
        NodeMissingError: there is no Node or no npm, or npm got nothing.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise NodeMissingError("Segment's client needs Node and npm: apt-get install nodejs npm")
    digest = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    home = cache / f"segment-node-{digest[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "segment-node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            _fetch_into(home, npm)
    return home


def _fetch_into(home: Path, npm: str) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f"{home.name}.part-") as part:
        folder = Path(part) / "packages"
        folder.mkdir()
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(FOLDER / name, folder)
        command = [npm, "ci", "--ignore-scripts"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise NodeMissingError(f"npm did not fetch Segment's client within {FETCH_TIMEOUT_S} s") from None
        if done.returncode != 0:
            raise NodeMissingError(f"npm could not fetch Segment's client: {done.stderr.strip()[:500]}")
        # Last, and in one step: a folder of this name is always whole.
        folder.rename(home)


class SegmentNode:
    """A process with Segment's client, unchanged but for the host."""

    def __init__(self, home: Path, host: str, token: str, folder: Path) -> None:
        self._output = folder / "segment-node.out"
        self._errors = folder / "segment-node.err"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                ["node", FOLDER / "send.mjs", home, host],
                env={"PATH": os.environ.get("PATH", os.defpath), "WRITE_KEY": token},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        # Waits, and closes the pipe.
        self._process.__exit__(kind, error, trace)

    def send(self, kind: str, call: Mapping[str, Any]) -> None:
        """Give the client a call."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"kind": kind, "call": call}).encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> Sent:
        """Wait until the client is done with every call, and return what it has done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(END_TIMEOUT_S) == 0, self._errors.read_text()
        *done, last = map(json.loads, self._output.read_bytes().splitlines())
        events = [line["event"] for line in done if not line["error"]]
        return Sent(events, [line["error"] for line in done if line["error"]], last["retries"])
