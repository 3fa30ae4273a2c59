"""What a row of the table is: a fault, where it strikes, and what may be lost by it."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.load import EventMaker, find_month, make_plain
from chaos.scale import Scale
from chaos.stage import Stage
from testbed.servers.forebay import ForebayServer
from testbed.traffic.events import Event

BOTH = ("disk", "memory")


class Loss(enum.Enum):
    """What a fault may take with it."""

    NOTHING = "nothing"
    UNWRITTEN = "unwritten"  # what was acknowledged from memory and not settled when the process was killed
    DAMAGED = "damaged"  # what only the damaged file held
    DELIVERED = "delivered"  # what OpenSearch held when its data was lost


class Place(enum.Enum):
    """What is between Forebay and the disk of OpenSearch."""

    SHARED = "shared"  # an OpenSearch that nobody stops
    OWN = "own"  # one that the fault stops, freezes or starts with other settings
    PROXY = "proxy"  # a proxy that misbehaves, with the shared one behind it


def spares_all(event: Event) -> bool:
    """Say of every event that the sink takes it."""
    del event
    return False


def tolerates_none(log_id: str) -> bool:
    """Say of every event that it may be there once."""
    del log_id
    return False


def prepare_nothing(folder: Path, scale: Scale) -> AbstractContextManager[dict[str, str]]:
    """Make nothing ready beside the folder of the trial."""
    del folder, scale
    return contextlib.nullcontext({})


async def set_up_nothing(stage: Stage) -> None:
    """Change nothing before the clients begin."""
    del stage


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        name: how it is called on the command line.
        title: how it is called in the table.
        fault: brings it about, and returns when it is over.
        place: where it strikes.
        acks: with which acknowledgements it is tried.
        loss: what may be lost by it with `ack=memory`, or, for a damaged file or lost data, with any.
        doomed: which events must become dead letters.
        make: makes the events.
        find_month: of the index that an event must be in.
        tolerated: which `log_id`s may stand in two indices; how many do is noted.
        settings: of the server, beside those of the scale.
        prepare: makes ready what the server needs before it starts, and gives further settings for it.
        serve: the server that runs.
        set_up: makes ready what needs a running server, before the clients begin.
        short_acks: with which acknowledgements the tests try it; with none where the short form shows nothing more.
        prose: what else there is to say, for the document.
    """

    name: str
    title: str
    fault: Callable[[Stage], Awaitable[None]]
    place: Place = Place.SHARED
    acks: tuple[str, ...] = BOTH
    loss: Loss = Loss.NOTHING
    doomed: Callable[[Event], bool] = spares_all
    make: EventMaker = make_plain
    find_month: Callable[[Event], str | None] = find_month
    tolerated: Callable[[str], bool] = tolerates_none
    settings: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path, Scale], AbstractContextManager[dict[str, str]]] = prepare_nothing
    serve: type[ForebayServer] = ForebayServer
    set_up: Callable[[Stage], Awaitable[None]] = set_up_nothing
    short_acks: tuple[str, ...] = ("disk",)
    prose: str = ""

    def may_lose(self, ack: str) -> Loss:
        """Say what may be lost with one acknowledgement."""
        return Loss.NOTHING if self.loss is Loss.UNWRITTEN and ack == "disk" else self.loss
