"""A row of the table: a fault, the part that it strikes, and the events that it may cost."""

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
    """The events that a fault may cost."""

    NOTHING = "nothing"
    UNWRITTEN = "unwritten"  # those acknowledged from memory and not settled when the process was killed
    DAMAGED = "damaged"  # those that only the damaged file held
    DELIVERED = "delivered"  # those that OpenSearch held when its data was lost


class Backend(enum.Enum):
    """The OpenSearch of a row, and the way to it."""

    SHARED = "shared"  # an OpenSearch that nobody stops
    OWN = "own"  # one that the fault stops, freezes or starts with other settings
    PROXY = "proxy"  # a proxy that misbehaves, with the shared one behind it


def spares_all(event: Event) -> bool:
    """Return that the sink takes every event."""
    del event
    return False


def tolerates_none(log_id: str) -> bool:
    """Return that no event may be there twice."""
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
        name: its name on the command line.
        title: its description in the table.
        fault: brings it about, and returns when it is over.
        backend: the OpenSearch that it needs.
        acks: the acknowledgements with which it is tried.
        loss: the events that it may cost with `ack=memory`, or, for a damaged file or lost data, with any.
        doomed: returns whether an event must become a dead letter.
        make: makes the events.
        find_month: returns the month of the index that an event must be in.
        tolerated: returns whether a `log_id` may be in two indices; the number of those that are is noted.
        settings: of the server, beside those of the scale.
        prepare: makes the server's surroundings ready before it starts, and gives further settings for it.
        serve: makes the server.
        set_up: makes the rest ready beside the running server, before the clients begin.
        short_acks: the acknowledgements with which the tests try it; none if the short form shows nothing more.
        prose: an explanation for the document.
    """

    name: str
    title: str
    fault: Callable[[Stage], Awaitable[None]]
    backend: Backend = Backend.SHARED
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
        """Return the events that may be lost with one acknowledgement."""
        return Loss.NOTHING if self.loss is Loss.UNWRITTEN and ack == "disk" else self.loss
