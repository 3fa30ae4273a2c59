"""The spools of all workers, as one spool for a command."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from forebay.errors import GroupDamaged, SpoolUnusable
from forebay.model import Entry
from forebay.spool.beside.inspection import (
    Choice,
    DeadCount,
    Inspection,
    MeantEvents,
    PendingEvent,
    StoredLetter,
    Summary,
    inspect,
)
from forebay.spool.beside.requests import Burial, Request
from forebay.spool.files import find_spools
from forebay.spool.records import Totals

T = TypeVar("T")


class FoundLetter(NamedTuple):
    """A dead letter, and the path of its spool."""

    path: Path
    letter: StoredLetter


class AllSpools:
    """All spools that exist.

    Each method opens one spool after the other, so that an error names the spool that failed. Each raises `SpoolError`
    if a spool fails.
    """

    def __init__(self, database: Path) -> None:
        """Find the spools.

        Raises:
            SpoolUnusable: there are none.
        """
        self._paths = tuple(find_spools(database).values())
        if not self._paths:
            raise SpoolUnusable(f"DATABASE_URL: there is no database at {database}; has the server run in this folder?")

    def summarize(self) -> Summary:
        """Return the totals of all of them, and the time of the oldest group."""
        summaries = self._each(lambda spool: spool.summarize())
        oldest = [summary.oldest_at_ms for summary in summaries if summary.oldest_at_ms is not None]
        totals = Totals(*map(sum, zip(*(summary.totals for summary in summaries), strict=True)))
        return Summary(totals, min(oldest, default=None))

    def list_pending(self, events_max: int) -> Iterator[PendingEvent | GroupDamaged]:
        """Go through the events that are not settled, oldest first; a damaged group stands for its events."""
        for _, _, event in heapq.merge(
            *(_list_pending(number, path, events_max) for number, path in enumerate(self._paths))
        ):
            if isinstance(event, PendingEvent):
                if events_max <= 0:
                    return
                events_max -= 1
            yield event

    def list_dead(self, choice: Choice, letters_max: int) -> list[FoundLetter]:
        """Return dead letters, newest first."""
        found: list[FoundLetter] = []
        for path in self._paths:
            with inspect(path) as spool:
                found += [FoundLetter(path, letter) for letter in spool.list_dead(choice, letters_max)]
        found.sort(key=lambda one: one.letter.died_at_ms, reverse=True)
        return found[:letters_max]

    def count_dead(self, choice: Choice) -> DeadCount:
        """Count dead letters."""
        counts = self._each(lambda spool: spool.count_dead(choice))
        return DeadCount(sum(count.letters for count in counts), sum(count.to_replay for count in counts))

    def replay(self, choice: Choice) -> int:
        """Ask the owners to move dead letters back; return the number of letters that were not requested before."""

        def replay(spool: Inspection) -> int:
            requested = spool.request_replay(choice)
            # Also if all were requested before: the command that did so may have been interrupted.
            if spool.count_dead(choice).to_replay:
                spool.ask(Request.REPLAY)
            return requested

        return sum(self._each(replay))

    def purge(self, choice: Choice) -> int:
        """Delete dead letters that are not requested for replay; return their number."""
        return sum(self._each(lambda spool: spool.purge(choice)))

    def correct(self, found: FoundLetter, entry: Entry, *, replay: bool) -> bool:
        """Replace a letter's entry, and request its replay if `replay`; return False if it has changed meanwhile."""
        with inspect(found.path) as spool:
            is_corrected = spool.correct(found.letter, entry, replay=replay)
            if is_corrected and replay:
                spool.ask(Request.REPLAY)
        return is_corrected

    def find_meant(self, burial: Burial) -> MeantEvents:
        """Count the pending events that a command means."""
        found = self._each(lambda spool: spool.find_meant(burial))
        return MeantEvents(
            sum((meant.by_index for meant in found), Counter()),
            sum(meant.entry_bytes for meant in found),
            frozenset().union(*(meant.log_ids for meant in found)),
        )

    def ask(self, request: Request | Burial) -> None:
        """Leave a request for every owner."""
        self._each(lambda spool: spool.ask(request))

    def _each(self, work: Callable[[Inspection], T]) -> list[T]:
        results = []
        for path in self._paths:
            with inspect(path) as spool:
                results.append(work(spool))
        return results


def _list_pending(
    number: int, path: Path, events_max: int
) -> Iterator[tuple[tuple[int, int], int, PendingEvent | GroupDamaged]]:
    """Go through one spool; each event comes with the keys by which those of all spools are ordered."""
    received_at_ms = 0
    with inspect(path) as spool:
        for position, event in enumerate(spool.list_pending(events_max)):
            # A group that cannot be read comes right behind the one before it.
            if isinstance(event, PendingEvent):
                received_at_ms = event.received_at_ms
            yield (received_at_ms, number), position, event
