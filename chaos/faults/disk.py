"""The disk under the spool is full, or the spool is."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos.load import make_plain
from chaos.rows import Place, Row
from chaos.scale import Scale
from chaos.stage import POLL_S, Stage
from servers.small_disk import SmallDisk
from traffic.events import Event

DISK_BYTES_PER_S = 2_000_000
DISK_BYTES_MIN = 6_000_000
SPOOL_BYTES_MAX = "1048576"
NOISE_BYTES = 1_500
UNAVAILABLE = 503


@contextlib.contextmanager
def small_disk(folder: Path, scale: Scale) -> Iterator[dict[str, str]]:
    """Put the spool on a disk of its own that a fault can fill."""
    with SmallDisk(folder / "small-disk", max(DISK_BYTES_MIN, int(DISK_BYTES_PER_S * scale.fault_s))) as disk:
        yield {"DATABASE_URL": f"sqlite://{disk.path / 'spool.db'}"}


async def fill_disk(stage: Stage) -> None:
    """Take OpenSearch away until the disk is full, and bring it back a while later."""
    await asyncio.to_thread(stage.proxy.refuse)
    while not (await stage.metrics()).commit_failures:
        await asyncio.sleep(POLL_S)
    await _wait_refused(stage)
    await asyncio.to_thread(stage.proxy.accept)


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
        "disk of the spool full while OpenSearch is away; then it is back",
        fill_disk,
        place=Place.PROXY,
        prepare=small_disk,
        make=make_bulky,
        settings={"FOREBAY_CHANNEL_EVENTS_MAX": "2000"},
        short_acks=("disk", "memory"),
        awaits="room on a full disk for what makes room",
    ),
    Row(
        "spool-full",
        "spool full (`FOREBAY_SPOOL_BYTES_MAX`) while OpenSearch is away; then it is back",
        fill_spool,
        place=Place.PROXY,
        make=make_bulky,
        settings={"FOREBAY_SPOOL_BYTES_MAX": SPOOL_BYTES_MAX, "FOREBAY_CHANNEL_EVENTS_MAX": "2000"},
    ),
)
