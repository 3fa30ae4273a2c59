"""Sifting: sends one bulk to the sink, in as many requests as it takes to find the events at fault.

A request that is refused as a whole says nothing about single events, and nothing about the sink either: a web firewall
refuses it for one event, wrong credentials for all. So one event goes alone. If it is refused too, and nothing else was
taken meanwhile, the sink refuses everything, and the others wait. If it is answered, the rest is halved down to the
events at fault. A request that is too large is halved in any case, and the size of those that passed is remembered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from msgspec import structs

from forebay.model import Entry, Outcome, SameOutcome, Verdict

log = structlog.get_logger("forebay.delivery")

RETRY_SIZE_S = 60.0
"""The time after a request that was too large until a request larger than those that passed is tried."""

UNSENT = Outcome(Verdict.RETRY, "unknown", "it was not sent")


class Receiver(Protocol):
    """The part of a sink that delivery needs."""

    def expect(self, index: str) -> None:
        """Take note that the next bulk has events of an index."""

    async def deliver(self, entries: list[Entry]) -> Sequence[Outcome]:
        """Return the outcome of each entry, in their order."""


class RequestSize:
    """The largest request that the sink takes, learnt from those that were too large.

    Attributes:
        bytes_max: the most, or None while none was too large.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused_bytes_min = math.inf
        self._refused_at = 0.0
        self.bytes_max: int | None = None

    def shrink(self, request_bytes: int) -> None:
        """Take note of a request that was too large."""
        self._refused_bytes_min = min(request_bytes, self._refused_bytes_min)
        self._refused_at = self._clock()
        if self.bytes_max is None or request_bytes <= self.bytes_max:
            self.bytes_max = max(1, request_bytes // 2)

    def grow(self, request_bytes: int) -> None:
        """Take note of a request that was not too large: twice as much may go, unless that is known to be too large."""
        if self.bytes_max is None or request_bytes <= self.bytes_max // 2:
            return
        if request_bytes >= self._refused_bytes_min or self._clock() - self._refused_at > RETRY_SIZE_S:
            self._refused_bytes_min = math.inf
        if 2 * request_bytes < self._refused_bytes_min:
            self.bytes_max = max(self.bytes_max, 2 * request_bytes)


class Sifting:
    """Sends bulks to the sink.

    Attributes:
        size: the largest request.
    """

    def __init__(self, sink: Receiver, is_taking_since: Callable[[int], bool]) -> None:
        """Take the sink, and a function that returns whether the sink took events of bulks with higher numbers."""
        self._sink = sink
        self._is_taking_since = is_taking_since
        self.size = RequestSize()

    async def deliver(self, number: int, entries: list[Entry], first: int) -> Sequence[Outcome]:
        """Return the outcome of each entry of a bulk; the one at `first` goes alone if one has to."""
        outcomes = await self._send(entries)
        if len(entries) == 1 or not _is_refused_whole(outcomes):
            return outcomes
        found = [UNSENT] * len(entries)
        parts = _halve(0, len(entries))
        if not outcomes[0].is_too_large:
            parts = [(first + 1, len(entries)), (0, first), (first, first + 1)]
        rest = await self._sift(number, entries, [part for part in parts if part[0] < part[1]], found)
        return [rest if outcome is UNSENT else outcome for outcome in found]

    async def _sift(
        self, number: int, entries: list[Entry], parts: list[tuple[int, int]], found: list[Outcome]
    ) -> Outcome:
        """Send parts from the last one on, and halve refused ones; return the outcome of the parts not sent."""
        is_answered = False
        while parts:
            start, end = parts.pop()
            outcomes = await self._send(entries[start:end])
            last = outcomes[-1]
            if not _is_refused_whole(outcomes):
                is_answered = is_answered or not last.whole
                found[start:end] = outcomes
                # A sink that has gone away would cost its time-out again for every part that is still to come.
                if last.whole and not last.is_unexpected:
                    return last
            elif end - start > 1:
                parts += _halve(start, end)
            elif is_answered or self._is_taking_since(number):
                found[start] = structs.replace(last, whole=False)
            else:
                found[start] = last
                return structs.replace(last, verdict=Verdict.PAUSE, status=0)
        return UNSENT

    async def _send(self, entries: list[Entry]) -> Sequence[Outcome]:
        """Send one request; an answer for another number of events says nothing about any of them."""
        outcomes = await self._sink.deliver(entries)
        if len(outcomes) != len(entries):
            log.error("sink_outcomes_missing", events=len(entries), outcomes=len(outcomes))
            reason = f"{len(outcomes)} outcomes for {len(entries)} events"
            return SameOutcome(Outcome(Verdict.RETRY, "unknown", reason, whole=True), len(entries))
        is_too_large = outcomes[0].whole and outcomes[0].is_too_large
        if is_too_large or self.size.bytes_max is not None:
            request_bytes = sum(map(len, entries))
            if is_too_large:
                self.size.shrink(request_bytes)
            elif not outcomes[0].whole:
                self.size.grow(request_bytes)
        return outcomes


def _is_refused_whole(outcomes: Sequence[Outcome]) -> bool:
    return outcomes[0].whole and outcomes[0].verdict is Verdict.REFUSED


def _halve(start: int, end: int) -> list[tuple[int, int]]:
    """Return the halves of a part, the first one last."""
    middle = (start + end) // 2
    return [(middle, end), (start, middle)]
