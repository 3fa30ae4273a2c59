"""Evidence: whether a refusal, or a delivery without an answer, counts against an event.

No list of errors says whose fault a refusal is. A full index, somebody else's mapping or a broken pipeline refuses
every event, in words that may be those of a faulty one. So a refusal counts against an event, as a *strike*, only on
*evidence*: another event of its index was taken in the same bulk, or in a bulk sent after the event's refusal before.
*Taken* means created: that an event is there already, or has to come again, says nothing about the index as it is now.
An event dies at its second strike if the status is one of `OWN_FAULT`, and at its tenth for any other, each in another
round of redelivery: a refusal of a pipeline or a proxy may pass in time. Without evidence it waits. A status of
`UNAVAILABLE` never counts: the events that were taken are on other shards of the index.

*Poison* is an event that blocks every bulk it is in. No answer says so; it shows in how deliveries end. A delivery
that ended as a whole, without a word about single events (no answer in time, a connection reset, 5xx), is a strike of
another kind against a group, but only if another bulk was taken between the failure before it and this one. A sink that
is down takes nothing, so a day of it makes no strike. Suspects, groups with such strikes enough, go in bulks of their
own (`separate_bulks.py`). A single event that failed alone dies after as many strikes more, and there the evidence is
stricter: since its failure before, `OTHERS_MIN` other bulks were taken and no usual one failed. So an innocent event
that a shaky network meets by chance would have to meet it seven times in a row, the last three as the only one of ten.

Strikes are kept with the event in the spool. The evidence is in memory only: a new process has none at first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import NamedTuple

from msgspec import structs

from forebay.history import History
from forebay.model import DELIVERED, Outcome, Verdict, are_delivered
from forebay.pipeline.group import Bulk, Group

OWN_FAULT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Statuses that speak of the request's content, not of who is to take it (RFC 9110, section 15.5)."""

UNAVAILABLE = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
"""Statuses that speak of the server as it is now, and never of the request's content (RFC 9110, section 15.6)."""

REFUSALS_MAX = 2
REFUSALS_MAX_OF_OTHERS = 10
"""At how many strikes an event dies, by whether the status is one of `OWN_FAULT`."""

FAILURES_MAX = 3
"""From how many strikes on a group is suspect, and how many more a single event has that dies."""

OTHERS_MIN = 10
"""How many other bulks have to be taken between two failures of a single event for the second to be a strike."""

REFUSED_ROWS_MAX = 100_000
"""How many refused groups are remembered; for one that is forgotten only others in the same bulk count."""

FAILED_ROWS_MAX = 10_000
"""How many failed groups are remembered; one that is forgotten has one failure more before it has a strike."""


class Progress(NamedTuple):
    """How far the sink had come when a group failed: bulks taken, and usual bulks failed."""

    taken: int
    failed: int


class FailureHistory:
    """The failures of groups whose deliveries end without an answer, from how others fare.

    Attributes:
        taken: bulks of which the sink settled at least one event.
        failed: bulks of usual groups that failed as a whole.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.failed = 0
        self._failed_rows: dict[int, Progress] = {}

    def note(self, outcomes: Sequence[Outcome], *, is_alone: bool) -> None:
        """Take note of a bulk."""
        if any(outcome.settled for outcome in outcomes):
            self.taken += 1
        elif not is_alone and any(outcome.is_blocking for outcome in outcomes):
            self.failed += 1

    def note_failure(self, row_id: int) -> None:
        """Remember how things are at a failure of this group; later ones are compared with it."""
        self._failed_rows.pop(row_id, None)
        if len(self._failed_rows) >= FAILED_ROWS_MAX:
            del self._failed_rows[next(iter(self._failed_rows))]
        self._failed_rows[row_id] = Progress(self.taken, self.failed)

    def count_failure(self, row_id: int, *, is_single: bool) -> int:
        """Take note of a failure of this group; return 1 if it is a strike, else 0.

        `is_single` is one event that failed alone.
        """
        before = self._failed_rows.get(row_id)
        if before is None or (is_single and self.failed > before.failed):
            self.note_failure(row_id)
            return 0
        if self.taken - before.taken < (OTHERS_MIN if is_single else 1):
            return 0
        self.note_failure(row_id)
        return 1


class Refusal(NamedTuple):
    """How things were at a group's last refusal: bulks sent so far, and the round in which it had its last strike."""

    sent: int
    struck_in_round: int


class Evidence:
    """Which events were taken and which refused, in which order.

    Attributes:
        rounds: how often redelivery has gone through everything because it was time.
        failures: the groups whose deliveries ended without an answer.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.failures = FailureHistory()
        self._sent = 0
        self._last_taken = 0
        self._taken_in: dict[str, int] = {}  # by index: the last bulk in which an event of it was taken
        self._refused_rows: dict[int, Refusal] = {}

    def number_bulk(self) -> int:
        """Return the number of a bulk that is being sent now; later ones have higher numbers."""
        self._sent += 1
        return self._sent

    def is_taking_since(self, number: int) -> bool:
        """Return whether anything was taken of a bulk with a higher number."""
        return self._last_taken > number

    def weigh(self, number: int, bulk: Bulk, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Return the outcomes of a bulk on the evidence: refusals with their strikes, and the last one as death."""
        if are_delivered(outcomes):
            self._note_taken(number, {group.index for group, _ in bulk.slices})
            return outcomes
        taken = {group.index for group, _, mine in bulk.pair(outcomes) if DELIVERED in mine}
        self._note_taken(number, taken)
        weighed: list[Outcome] = []
        for group, _, mine in bulk.pair(outcomes):
            if any(outcome.verdict is Verdict.REFUSED for outcome in mine):
                weighed += self._weigh_slice(group, mine, is_proven=group.index in taken)
            else:
                weighed += mine
        return weighed

    def note_left(self, row_id: int, history: History, *, is_struck: bool) -> None:
        """Take note that events of a row were not taken, and how things are now."""
        before = self._refused_rows.pop(row_id, None)
        if not history.refused_status:
            return
        if len(self._refused_rows) >= REFUSED_ROWS_MAX:
            del self._refused_rows[next(iter(self._refused_rows))]
        struck_in_round = self.rounds if is_struck else before.struck_in_round if before else -1
        self._refused_rows[row_id] = Refusal(self._sent, struck_in_round)

    def forget(self, row_ids: Iterable[int]) -> None:
        """Take note that rows are not there any more."""
        for row_id in row_ids:
            self._refused_rows.pop(row_id, None)

    def _note_taken(self, number: int, indices: set[str]) -> None:
        if indices:
            self._last_taken = max(number, self._last_taken)
        for index in indices:
            self._taken_in[index] = max(number, self._taken_in.get(index, 0))

    def _weigh_slice(self, group: Group, outcomes: Sequence[Outcome], *, is_proven: bool) -> Iterator[Outcome]:
        before = None if group.row_id is None else self._refused_rows.get(group.row_id)
        is_proven = is_proven or (before is not None and self._taken_in.get(group.index, 0) > before.sent)
        is_next_round = before is None or before.struck_in_round != self.rounds
        for outcome in outcomes:
            if outcome.verdict is Verdict.REFUSED and is_proven and outcome.status not in UNAVAILABLE:
                yield _prove(outcome, group.history, is_next_round=is_next_round)
            elif outcome.whole and group.history.refusals and outcome.status == group.history.refused_status:
                # The same refusal was its own fault before. Nothing new shows whether the sink refuses others, too.
                yield structs.replace(outcome, is_own=True)
            else:
                yield outcome


def _prove(outcome: Outcome, history: History, *, is_next_round: bool) -> Outcome:
    """Return a refusal that is the event's own, and the strike or the death that it comes to."""
    is_about_it = outcome.status in OWN_FAULT
    is_struck = is_about_it or is_next_round
    is_last = is_struck and history.refusals + 1 >= (REFUSALS_MAX if is_about_it else REFUSALS_MAX_OF_OTHERS)
    verdict = Verdict.DEAD if is_last else Verdict.REFUSED
    return structs.replace(outcome, verdict=verdict, whole=False, is_own=True, is_struck=is_struck)
