"""Admission: where the events of a request go, by the acknowledgement that was asked for."""

from __future__ import annotations

import asyncio

from forebay.errors import SpoolUnavailable
from forebay.model import Ack, Admission
from forebay.pipeline.channel import Channel
from forebay.pipeline.holds import Holds
from forebay.pipeline.journal import Journal
from forebay.pipeline.packing import Submission

FULL_RETRY_AFTER_S = 60
"""A full spool empties as fast as the sink takes events: no use in asking every second."""


class Admitter:
    """The door between intake and pipeline.

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
        """Take the events of a request; it hears, now or later, that they are safe or that nothing was kept."""
        if self.closed:
            submission.refused(SpoolUnavailable("the server is shutting down", retry_after_s=1))
        elif self.full:
            # `ack=memory` too: what the sink then does not take would have to go into the spool.
            submission.refused(SpoolUnavailable("the spool is full", FULL_RETRY_AFTER_S))
        elif refusal := self._journal.refusal:
            submission.refused(SpoolUnavailable(refusal))
        elif ack is Ack.MEMORY and self._remember(submission):
            self._tell_soon(submission)
        else:
            self._journal.submit(submission)

    def _remember(self, submission: Submission) -> bool:
        # A spool that takes nothing would not take what the sink refuses of it either.
        if self._journal.is_behind:
            return False
        # What has to wait for an operator waits in the spool, and takes no room from others.
        if self._holds.cover_any(submission.entries):
            return False
        return self._channel.add(submission.entries, submission.entry_bytes)

    def _tell_soon(self, submission: Submission) -> None:
        # All together at the end of this round of the loop, as after a commit: answers that leave one by one wake
        # their clients one by one, which took a third of the processor time of `ack=memory`.
        self._in_memory.append(submission)
        if len(self._in_memory) == 1:
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        submissions, self._in_memory = self._in_memory, []
        for submission in submissions:
            submission.admitted(Admission.CREATED)
