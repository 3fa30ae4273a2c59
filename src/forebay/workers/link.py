"""The socket between the supervisor and one of its workers, and the messages on it.

Its type is SOCK_SEQPACKET: messages stay separate, and each end learns that the process at the other end is gone. A
worker reports that it serves, and reports it again at each ping. A ping holds the reasons why orphans are not emptied,
since every worker answers for the whole server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import msgspec
import structlog
from msgspec import Struct

from forebay.admin.peers import Peers

log = structlog.get_logger("forebay.worker")

MESSAGE_BYTES_MAX = 128 * 1024
"""Less than the buffer of a socket, by default 208 KiB (socket(7))."""

LEFT_SPOOLS_MAX = 64
"""So many orphans are named in a message; with paths of usual length they take a few KiB."""


class Serving(Struct, tag=True):
    """The worker works, and its event loop answers; `events_go_to` is the sink, for people."""

    events_go_to: str


class LeftSpools(Struct, tag=True):
    """The reasons why orphans are not emptied, by the path of the orphan."""

    causes: dict[str, str]


Report = Serving | LeftSpools
"""The messages of a worker."""

encode = msgspec.json.Encoder().encode
decode_report = msgspec.json.Decoder(Report).decode
decode_ping = msgspec.json.Decoder(tuple[str, ...]).decode


def make_link() -> tuple[socket.socket, socket.socket]:
    """Return both ends, neither of which ever waits."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.settimeout(0)
    return ends


class SupervisorLink:
    """The worker's end.

    Attributes:
        is_supervised: false once the supervisor is gone.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.is_supervised = True

    def report(self, report: Report) -> None:
        """Send a report; a supervisor that is gone needs none."""
        with contextlib.suppress(OSError):
            self._end.send(encode(report))

    def serve(self, serving: Serving, peers: Peers, on_gone: Callable[[], None]) -> None:
        """Report that this worker serves, now and at each ping.

        The event loop answers, so that a loop that hangs is found. `on_gone` is called when the supervisor is gone:
        nobody would start this worker again, and the next supervisor needs its spool.
        """
        loop = asyncio.get_running_loop()

        def receive() -> None:
            ping = b""
            # A supervisor that was killed before it read everything leaves an error.
            with contextlib.suppress(OSError):
                ping = self._end.recv(MESSAGE_BYTES_MAX)
            if ping:
                peers.left_spools = decode_ping(ping)
                self.report(serving)
            else:
                loop.remove_reader(self._end)
                log.error("supervisor_gone")
                self.is_supervised = False
                on_gone()

        loop.add_reader(self._end, receive)
        self.report(serving)
