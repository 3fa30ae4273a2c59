"""The announcement of a server that has begun to take events: a log line, and for a newcomer a curl line that works."""

from __future__ import annotations

import sys
from typing import NamedTuple

import structlog

log = structlog.get_logger("forebay.server")


class Announcement(NamedTuple):
    """What is told once. It needs nothing that the supervisor of several workers does not have in memory anyway.

    Attributes:
        fields: those of the log line.
        text: for standard output, or empty.
    """

    fields: dict[str, str | int]
    text: str

    def tell(self) -> None:
        """Write both."""
        log.info("serving", **self.fields)
        if self.text:
            sys.stdout.write(self.text)
            sys.stdout.flush()
