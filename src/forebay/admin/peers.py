"""The processes of one server: any of them answers for all, so it asks the others first.

Each hands out its snapshot on a Unix socket in a folder that the supervisor made. A worker's socket is named after its
number. The worker that empties an orphan has a socket too, but takes no events.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from forebay.admin.snapshot import ServerSnapshot, Snapshot, decode_snapshot, encode_snapshot

log = structlog.get_logger("forebay.peers")

ANSWER_S = 0.5
"""How long a process may take to answer.

Kubernetes waits a second for a probe unless told otherwise, and must hear in that time that the others are well.
"""

ORPHAN_SOCKET = "orphan.sock"

SOCKET_PATH_BYTES_MAX = 107
"""The longest path of a Unix socket on Linux (unix(7))."""


def can_hold_sockets(folder: Path) -> bool:
    """Return whether the path of a folder is short enough for the sockets in it."""
    return len(os.fsencode(folder / ORPHAN_SOCKET)) <= SOCKET_PATH_BYTES_MAX


class Peers:
    """The processes of one server, seen from one of them.

    Attributes:
        number: the number of this process and of its spool, from 1.
        left_spools: the reasons why orphans are not emptied, one line each, from the supervisor.
    """

    def __init__(self, number: int = 1, workers: int = 1, folder: Path | None = None) -> None:
        """Take the folder of the sockets; a single process without a supervisor has none."""
        self.number = number
        self.left_spools: tuple[str, ...] = ()
        self._workers = workers
        self._folder = folder

    async def ask(self, own: Snapshot) -> ServerSnapshot:
        """Return the snapshots of all processes that answer in time."""
        answers = [own]
        if self._folder is not None:
            others = [number for number in range(1, self._workers + 1) if number != self.number]
            asked = [_ask(self._socket(self._folder, number), number) for number in others]
            found = await asyncio.gather(*asked, _ask(self._socket(self._folder, self._workers + 1)))
            answers += [snapshot for snapshot in found if snapshot]
        snapshots = {snapshot.number: snapshot for snapshot in answers}
        return ServerSnapshot(self._workers, snapshots, self.left_spools, is_supervised=self._folder is not None)

    async def answer(self, observe: Callable[[], Snapshot]) -> None:
        """Hand out snapshots for ever."""
        if self._folder is None:
            return

        def hand_out(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(encode_snapshot(observe()))
            writer.close()

        try:
            # This replaces the socket of a process that was here before.
            async with await asyncio.start_unix_server(hand_out, self._socket(self._folder, self.number)) as server:
                await server.serve_forever()
        except OSError as error:
            log.error("worker_mute", cause=str(error))  # noqa: TRY400 - the cause says it all

    def leave(self) -> None:
        """Remove this process's socket, and the folder if it is empty then."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._socket(self._folder, self.number).unlink(missing_ok=True)
                self._folder.rmdir()

    def _socket(self, folder: Path, number: int) -> Path:
        return folder / (f"{number}.sock" if number <= self._workers else ORPHAN_SOCKET)


async def _ask(path: Path, number: int | None = None) -> Snapshot | None:
    """Return the snapshot of the process behind a socket; without a `number` there may be none."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return decode_snapshot(await reader.read())
            finally:
                writer.close()
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        if number is not None:
            log.warning("worker_silent", silent_worker=number, cause=str(error) or type(error).__name__)
        return None
