"""The disk under the spool is full, or the spool is."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos.load import make_plain
from chaos.rows import Backend, Row
from chaos.scale import Scale
from chaos.stage import POLL_S, Stage
from testbed.servers.small_disk import SmallDisk
from testbed.traffic.events import Event

DISK_BYTES = 64 * 1024 * 1024
"""Room for the server's reserve, so that it may begin at all."""

NEIGHBOUR = "neighbour"
SPOOL_BYTES_MAX = "1048576"
NOISE_BYTES = 1_500
UNAVAILABLE = 503
WAITING_MIN = 500
"""The least events in the spool when the disk becomes full: some must be left to deliver."""


@contextlib.contextmanager
def small_disk(folder: Path, scale: Scale) -> Iterator[dict[str, str]]:
    """Put the spool on a disk of its own that a fault can fill."""
    del scale
    with SmallDisk(folder / "small-disk", DISK_BYTES) as disk:
        yield {"DATABASE_URL": f"sqlite://{disk.path / 'spool.db'}"}


async def fill_disk(stage: Stage) -> None:
    """Take OpenSearch away, then all room on the disk; bring back OpenSearch, and at last the room."""
    await asyncio.to_thread(stage.proxy.refuse)
    await stage.wait_unwell()
    # Events of `ack=memory` go there only when the channel is full.
    while (await stage.metrics()).spool_events < WAITING_MIN:
        await asyncio.sleep(POLL_S)
    await asyncio.to_thread(_take_room, stage.spool_path.with_name(NEIGHBOUR))
    while not (await stage.metrics()).commit_failures:
        await asyncio.sleep(POLL_S)
    await _wait_refused(stage)
    waiting = (await stage.metrics()).spool_events
    began_at = time.monotonic()
    await asyncio.to_thread(stage.proxy.accept)
    while (await stage.metrics()).spool_events:
        await asyncio.sleep(POLL_S)
    stage.notes.append(
        f"the {waiting:,} events that waited were delivered, and deleted, from the full disk within "
        f"{time.monotonic() - began_at:.1f} s"
    )
    stage.spool_path.with_name(NEIGHBOUR).unlink()


def _take_room(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        block = bytes(1024 * 1024)
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]


async def fill_spool(stage: Stage) -> None:
    """Take OpenSearch away until the spool holds as much as it may, and bring it back a while later."""
    await asyncio.to_thread(stage.proxy.refuse)
    await _wait_refused(stage)
    await asyncio.to_thread(stage.proxy.accept)


def make_bulky(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event that takes space also when it is compressed."""
    event = make_plain(number, with_id)
    event["param"] = {"noise": random.Random(number).randbytes(NOISE_BYTES).hex()}
    return event


async def _wait_refused(stage: Stage) -> None:
    while not stage.load.client.answers[UNAVAILABLE]:
        await asyncio.sleep(POLL_S)
    await asyncio.sleep(stage.scale.fault_s)


ROWS: Sequence[Row] = (
    Row(
        "disk-full",
        "disk of the spool full while OpenSearch is away; that is back first, then room is made",
        fill_disk,
        backend=Backend.PROXY,
        prepare=small_disk,
        make=make_bulky,
        settings={"FOREBAY_CHANNEL_EVENTS_MAX": "2000"},
        prose="""\
Another program takes all the room on the disk. Clients get 503 and send again; events that were accepted before wait.
When OpenSearch is back, these are delivered and deleted although the disk is still full. When there is room again,
events are accepted again by themselves.""",
    ),
    Row(
        "spool-full",
        "spool full (`FOREBAY_SPOOL_BYTES_MAX`) while OpenSearch is away; then it is back",
        fill_spool,
        backend=Backend.PROXY,
        make=make_bulky,
        settings={"FOREBAY_SPOOL_BYTES_MAX": SPOOL_BYTES_MAX, "FOREBAY_CHANNEL_EVENTS_MAX": "2000"},
    ),
)
