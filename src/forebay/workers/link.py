"""The socket between the supervisor and one of its workers, and the messages on it.

It keeps messages apart (SOCK_SEQPACKET) and ends with either process. A worker tells that it serves, and tells it again
at each ping. With a ping the supervisor tells why orphans are left where they are: every worker answers for them.
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
"""A few times the reasons why 64 orphans are left; a kernel that keeps the default takes 208 KiB (socket(7))."""


class Serving(Struct, tag=True):
    """The worker's event loop runs, and it does its work; `events_go_to` is the sink, for people."""

    events_go_to: str


class LeftSpools(Struct, tag=True):
    """Why orphans are left where they are, by the path of the orphan."""

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
    """The worker's end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.is_supervised = True

    def report(self, report: Report) -> None:
        """Tell the supervisor something; one that is gone needs to know nothing."""
        with contextlib.suppress(OSError):
            self._end.send(encode(report))

    def serve(self, serving: Serving, peers: Peers, on_gone: Callable[[], None]) -> None:
        """Tell the supervisor that this worker serves, and answer its pings.

        The event loop answers, so that a worker whose loop hangs is found out. `on_gone` is called when the supervisor
        is gone: nobody would start this worker again, and its spool must be free for the next supervisor's.
        """
        loop = asyncio.get_running_loop()

        def hear() -> None:
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

        loop.add_reader(self._end, hear)
        self.report(serving)
