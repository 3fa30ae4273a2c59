"""The door between intake and pipeline: a request's events go to the spool or the channel, by its acknowledgement."""

from __future__ import annotations

import asyncio

from forebay.errors import SpoolUnavailable
from forebay.model import CREATED, MEMORY, Ack
from forebay.pipeline.channel import Channel
from forebay.pipeline.group import Submission
from forebay.pipeline.holds import Holds
from forebay.pipeline.journal import Journal

FULL_RETRY_AFTER_S = 60
"""A full spool empties as fast as the sink takes events: no use in asking every second."""


SHUTTING_DOWN = SpoolUnavailable("the server is shutting down", retry_after_s=1)


class Admitter:
    """Takes the events of a request, or refuses them.

    Attributes:
        closed: set at shutdown; nothing is admitted any more.
    """

    def __init__(self, channel: Channel, journal: Journal, holds: Holds, spool_bytes_max: int) -> None:
        self._channel = channel
        self._journal = journal
        self._holds = holds
        self._spool_bytes_max = spool_bytes_max
        self._loop = asyncio.get_running_loop()
        self._in_memory: list[Submission] = []
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether the spool holds as much as it may."""
        return self._journal.spool_bytes >= self._spool_bytes_max

    def admit(self, submission: Submission, ack: Ack) -> None:
        """Take the events of a request; it hears, now or later, that they are safe or that nothing was stored."""
        if self.closed:
            submission.refused(SHUTTING_DOWN)
        elif self._journal.spool_bytes >= self._spool_bytes_max:
            # `ack=memory` too: events that the sink then does not take would have to go into the spool.
            submission.refused(SpoolUnavailable("the spool is full", FULL_RETRY_AFTER_S))
        elif refusal := self._journal.refusal:
            submission.refused(SpoolUnavailable(refusal))
        elif ack is MEMORY and self._take_into_memory(submission):
            self._tell_soon(submission)
        else:
            self._journal.submit(submission)

    def _take_into_memory(self, submission: Submission) -> bool:
        """Put events into the channel alone; return whether that was possible."""
        # A spool that takes nothing would not take events that the sink refuses either.
        if self._journal.is_behind:
            return False
        # Events that have to wait for an operator wait in the spool, and take no room from others.
        if self._holds.cover_any(submission.parts):
            return False
        return self._channel.add(submission.parts)

    def _tell_soon(self, submission: Submission) -> None:
        # All together at the end of this round of the loop, as after a commit: answers that leave one by one wake
        # their clients one by one, which took a third of the processor time of `ack=memory`.
        self._in_memory.append(submission)
        if len(self._in_memory) == 1:
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        submissions, self._in_memory = self._in_memory, []
        for submission in submissions:
            submission.admitted(CREATED)
