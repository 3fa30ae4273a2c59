"""The end of the process, whatever hangs."""

from __future__ import annotations

import os
import threading

import structlog

log = structlog.get_logger("forebay.server")

LATE_EXIT_CODE = 1


def end_within(limit_s: float) -> None:
    """End the process if it has not ended by itself then.

    A disk or a network file system that hangs holds the thread that waits for it, and whoever waits for that thread.
    Nothing is lost that was answered after a commit: this is what a power cut does, and the next start reads the spool.
    """
    timer = threading.Timer(limit_s, _end_late, (limit_s,))
    timer.daemon = True
    timer.start()


def _end_late(limit_s: float) -> None:
    log.error("ended_late", limit_s=limit_s, consequence="what was not written is lost; what was answered is not")
    os._exit(LATE_EXIT_CODE)
