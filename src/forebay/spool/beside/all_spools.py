"""The spools of all workers, which a command sees as one."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from forebay.errors import SpoolUnusable
from forebay.model import Entry
from forebay.spool.beside.inspection import (
    Choice,
    DeadCount,
    Inspection,
    MeantEvents,
    PendingEvent,
    Request,
    StoredLetter,
    Summary,
    inspect,
)
from forebay.spool.burials import Burial
from forebay.spool.records import GroupDamaged, Totals
from forebay.spool.spool_paths import find_spools

T = TypeVar("T")


class FoundLetter(NamedTuple):
    """A dead letter, and the spool that it lies in."""

    path: Path
    letter: StoredLetter


class AllSpools:
    """Every spool that is there.

    Each piece of work opens each spool for itself, one after the other: what fails is said of the spool that it is.
    Each method raises `SpoolError` where a spool fails.
    """

    def __init__(self, database: Path) -> None:
        """Find the spools.

        Raises:
            SpoolUnusable: there is none.
        """
        self._paths = tuple(find_spools(database).values())
        if not self._paths:
            raise SpoolUnusable(f"DATABASE_URL: there is no database at {database}; has the server run in this folder?")

    def summarize(self) -> Summary:
        """Tell how much all of them hold, and since when."""
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
        found.sort(key=lambda place: place.letter.died_at_ms, reverse=True)
        return found[:letters_max]

    def count_dead(self, choice: Choice) -> DeadCount:
        """Count dead letters."""
        counts = self._each(lambda spool: spool.count_dead(choice))
        return DeadCount(sum(count.letters for count in counts), sum(count.marked for count in counts))

    def replay(self, choice: Choice) -> int:
        """Mark dead letters and ask their owners to move them back; return how many were not marked yet."""

        def replay(spool: Inspection) -> int:
            marked = spool.mark_for_replay(choice)
            # Also where all of them were marked before: that command may have been interrupted.
            if spool.count_dead(choice).marked:
                spool.ask(Request.REPLAY)
            return marked

        return sum(self._each(replay))

    def purge(self, choice: Choice) -> int:
        """Delete dead letters but for those that are marked for replay; return how many went."""
        return sum(self._each(lambda spool: spool.purge(choice)))

    def correct(self, found: FoundLetter, entry: Entry, *, replay: bool) -> bool:
        """Replace a letter's entry and, where `replay` says so, have it moved back; False where it has changed."""
        with inspect(found.path) as spool:
            is_corrected = spool.correct(found.letter, entry, mark=replay)
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
    """Go through one spool, with what puts its events in order among those of others and keeps their own order."""
    received_at_ms = 0
    with inspect(path) as spool:
        for place, event in enumerate(spool.list_pending(events_max)):
            # A group that cannot be read stays behind the one before it.
            if isinstance(event, PendingEvent):
                received_at_ms = event.received_at_ms
            yield (received_at_ms, number), place, event
