"""What the processes of one server tell each other when they start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from forebay.announcing import Announcement
from forebay.model import LogFormat

if TYPE_CHECKING:
    # The supervisor, which imports this module, has no use for what reading settings takes.
    from forebay.settings import Settings

SERVING = b"serving"
"""What a worker tells the supervisor once it takes connections."""


class WorkerOrder(NamedTuple):
    """What all workers of a server are told; `listener` is the descriptor of the socket that they listen on."""

    settings: Settings
    secret: str
    listener: int
    folder: Path


class SupervisorOrder(NamedTuple):
    """What the supervisor is to do.

    Attributes:
        workers: how many processes share the port.
        listener: the descriptor of the socket that they listen on.
        folder: where the workers find each other; the supervisor removes it.
        announcement: to be told as soon as all of them serve.
        worker_order: what each worker reads at its start, a pickled `WorkerOrder`.
    """

    workers: int
    listener: int
    folder: Path
    log_format: LogFormat
    log_level: str
    announcement: Announcement
    worker_order: bytes
