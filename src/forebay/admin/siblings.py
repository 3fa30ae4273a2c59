"""The other workers of this server: each answers for all of them, and so asks the others first.

Every worker hands out its snapshot to whoever connects to its socket in the folder that the supervisor made for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from forebay.admin.snapshot import ServerSnapshot, Snapshot, decode_snapshot, encode_snapshot

log = structlog.get_logger("forebay.siblings")

ANSWER_S = 0.5
"""How long a worker may take.

Kubernetes waits a second for a probe unless told otherwise, and must hear in that time that the others are well.
"""


class Siblings:
    """The workers of one server, seen from one of them.

    Attributes:
        slot: the number of the worker that sees, from 1.
    """

    def __init__(self, slot: int = 1, workers: int = 1, folder: Path = Path()) -> None:
        self.slot = slot
        self._workers = workers
        self._folder = folder

    async def ask(self, own: Snapshot) -> ServerSnapshot:
        """Return the snapshots of all that answer in time."""
        others = [slot for slot in range(1, self._workers + 1) if slot != self.slot]
        answers = await asyncio.gather(*(self._ask(slot) for slot in others))
        return ServerSnapshot(self._workers, {snapshot.slot: snapshot for snapshot in (own, *answers) if snapshot})

    async def answer(self, observe: Callable[[], Snapshot]) -> None:
        """Hand out snapshots for ever."""
        if self._workers == 1:
            return

        def hand_out(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(encode_snapshot(observe()))
            writer.close()

        try:
            # A socket that this worker left here in an earlier life is replaced.
            async with await asyncio.start_unix_server(hand_out, self._path(self.slot)) as server:
                await server.serve_forever()
        except OSError as error:
            log.error("worker_mute", cause=str(error))  # noqa: TRY400 - the cause says it all

    def leave(self) -> None:
        """Remove what this worker has left in the folder, and the folder after the last one."""
        with contextlib.suppress(OSError):
            self._path(self.slot).unlink(missing_ok=True)
            self._folder.rmdir()

    async def _ask(self, slot: int) -> Snapshot | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self._path(slot))
                try:
                    return decode_snapshot(await reader.read())
                finally:
                    writer.close()
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            log.warning("worker_silent", sibling=slot, cause=str(error) or type(error).__name__)
            return None

    def _path(self, slot: int) -> Path:
        return self._folder / f"{slot}.sock"
