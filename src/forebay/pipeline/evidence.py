"""Evidence: whether a refusal is the event's own fault, from how others of its index fare.

No list of errors says whose fault a refusal is. A full index, somebody else's mapping or a broken pipeline refuses
every event, in words that may be those of a faulty one. So a refusal counts against an event, as a *strike*, only if
another event of its index was taken in the same bulk, or in a bulk sent after the event's refusal before. *Taken* means
created: that an event is there already, or has to come again, says nothing about the index as it is now.

An event dies at its second strike if the status is one of `OWN_FAULT`, and at its tenth for any other, each in another
round of redelivery: what a pipeline or a proxy says in other words may pass. Without evidence it waits.

Strikes are kept with the event in the spool. The evidence is in memory only: a new process has none at first, and a
refusal that is met then is no strike unless others are taken in the same bulk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import structs

from forebay.model import DELIVERED, HTTP_TOO_LARGE, History, Outcome, Verdict
from forebay.pipeline.channel import Bulk
from forebay.pipeline.group import Group
from forebay.pipeline.poison import Doubts

OWN_FAULT = frozenset({400, HTTP_TOO_LARGE, 422})
"""Statuses that speak of what was sent, not of who is to take it (RFC 9110, section 15.5)."""

STRIKES_MAX = 2
STRIKES_OF_OTHERS_MAX = 10

MARKS_MAX = 100_000
"""How many refused groups are remembered; for one that is forgotten only others in the same bulk count."""


class Mark(NamedTuple):
    """How things were at a group's last refusal: bulks sent so far, and the round in which it had its last strike."""

    sent: int
    struck_in_round: int


class Evidence:
    """What was taken, and who was refused when. Belongs to the event loop.

    Attributes:
        rounds: how often redelivery has gone through everything because it was time.
        doubts: what speaks against groups whose deliveries end without an answer.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.doubts = Doubts()
        self._sent = 0
        self._last_taken = 0
        self._taken_in: dict[str, int] = {}  # by index: the last bulk in which an event of it was taken
        self._marks: dict[int, Mark] = {}  # by row

    def number_bulk(self) -> int:
        """Return the number of a bulk that is being sent now; later ones have higher numbers."""
        self._sent += 1
        return self._sent

    def is_taking_since(self, number: int) -> bool:
        """Return whether anything was taken of a bulk with a higher number."""
        return self._last_taken > number

    def weigh(self, number: int, bulk: Bulk, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Return what the outcomes of a bulk come to: refusals with their strikes, and the last one as death."""
        if outcomes.count(DELIVERED) == len(outcomes):
            self._take(number, {group.index for group, _ in bulk.slices})
            return outcomes
        taken = {group.index for group, _, mine in bulk.pair(outcomes) if DELIVERED in mine}
        self._take(number, taken)
        weighed: list[Outcome] = []
        for group, _, mine in bulk.pair(outcomes):
            if any(outcome.verdict is Verdict.REFUSED for outcome in mine):
                weighed += self._weigh_slice(group, mine, is_proven=group.index in taken)
            else:
                weighed += mine
        return weighed

    def remember(self, row_id: int, history: History, *, was_struck: bool) -> None:
        """Take note that events of a row were not taken, and how things are now."""
        before = self._marks.pop(row_id, None)
        if not history.refused_status:
            return
        if len(self._marks) >= MARKS_MAX:
            del self._marks[next(iter(self._marks))]
        struck_in_round = self.rounds if was_struck else before.struck_in_round if before else -1
        self._marks[row_id] = Mark(self._sent, struck_in_round)

    def forget(self, row_ids: Iterable[int]) -> None:
        """Take note that rows are not there any more."""
        for row_id in row_ids:
            self._marks.pop(row_id, None)

    def _take(self, number: int, taken: set[str]) -> None:
        if taken:
            self._last_taken = max(number, self._last_taken)
        for index in taken:
            self._taken_in[index] = max(number, self._taken_in.get(index, 0))

    def _weigh_slice(self, group: Group, outcomes: Sequence[Outcome], *, is_proven: bool) -> Iterator[Outcome]:
        mark = None if group.row_id is None else self._marks.get(group.row_id)
        is_proven = is_proven or (mark is not None and self._taken_in.get(group.index, 0) > mark.sent)
        is_next_round = mark is None or mark.struck_in_round != self.rounds
        for outcome in outcomes:
            if outcome.verdict is Verdict.REFUSED and is_proven:
                yield _prove(outcome, group.history, is_next_round=is_next_round)
            else:
                yield outcome


def _prove(outcome: Outcome, history: History, *, is_next_round: bool) -> Outcome:
    """Return a refusal that is the event's own, and the strike or the death that it comes to."""
    is_about_it = outcome.status in OWN_FAULT
    is_struck = is_about_it or is_next_round
    is_last = is_struck and history.refusals + 1 >= (STRIKES_MAX if is_about_it else STRIKES_OF_OTHERS_MAX)
    verdict = Verdict.DEAD if is_last else Verdict.REFUSED
    return structs.replace(outcome, verdict=verdict, whole=False, is_own=True, is_struck=is_struck)
