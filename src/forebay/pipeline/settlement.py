"""Settlement: from the outcomes of a bulk to the strike or death of each event, and to the rows that the spool writes.

No list of errors says whose fault a refusal is. A full index, somebody else's mapping or a broken pipeline refuses
every event, in words that may be those of a faulty one. So a refusal counts against an event, as a *strike*, only on
*evidence*: another event of its index was taken in the same bulk, or in a bulk sent after the event's refusal before.
*Taken* means created: that an event is there already, or has to come again, says nothing about the index as it is now.
An event dies at its second strike if the status is one of `OWN_FAULT`, and at its tenth for any other, each in another
round of redelivery: a refusal of a pipeline or a proxy may pass in time. Without evidence it waits.

*Poison* is an event that blocks every bulk it is in. No answer says so; it shows in how deliveries end. A delivery
that ended as a whole, without a word about single events (no answer in time, a connection reset, 5xx), is a strike of
another kind against a group, but only if another bulk was taken between the failure before it and this one. A sink that
is down takes nothing, so a day of it makes no strike. Suspects, groups with such strikes enough, go in bulks of their
own (`separate_bulks.py`). A single event that failed alone dies after as many strikes more, and there the evidence is
stricter: since its failure before, `OTHERS_MIN` other bulks were taken and no usual one failed. So an innocent event
that a shaky network meets by chance would have to meet it seven times in a row, the last three as the only one of ten.

Strikes are kept with the event in the spool. The evidence is in memory only: a new process has none at first.

Invariant 2: a row leaves the spool only in the transaction that settles every event in it. So a group is let go of, or
shrunk to its unsettled events, when the last of its events has an outcome, and stays as it is until then: after a crash
its settled events are delivered once more and answered with "there already". The rest of a group keeps one history
for all of it. If the sink refused some of it, or refused it differently, each part gets a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import NamedTuple

from msgspec import structs

from forebay.model import DELIVERED, DeadLetter, Entry, History, Outcome, Verdict
from forebay.pipeline.group import Bulk, Group, Settlement
from forebay.spool.records import NewGroup, Transaction

OWN_FAULT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Statuses that speak of the request's content, not of who is to take it (RFC 9110, section 15.5)."""

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

POISON = "poison"
"""The `error_type` of the dead letter."""


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
        if outcomes.count(DELIVERED) == len(outcomes):
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
            if outcome.verdict is Verdict.REFUSED and is_proven:
                yield _prove(outcome, group.history, is_next_round=is_next_round)
            else:
                yield outcome


def settle(
    bulk: Bulk, outcomes: Sequence[Outcome], now_ms: int, new_id: Callable[[], int], evidence: Evidence
) -> list[Settlement]:
    """Record every outcome of a bulk in its groups, and return the settlements.

    `outcomes` stand in the order of the bulk's entries; `new_id` gives the number of a row for events that need one.
    Each group of which something is left has a settlement of its own: it may need room, and a deletion, which makes
    room, does not wait for it.
    """
    done = Settlement(Transaction(), [])
    settlements = [done]
    for group, entries, mine in bulk.pair(outcomes):
        if mine.count(DELIVERED) != len(mine):
            done.transaction.dead.extend(_dead_letters(group, entries, mine, now_ms))
        group.record(entries, mine)
        if group.open:
            continue
        if group.left:
            settlements.append(_keep(group, now_ms, new_id, evidence))
        else:
            done.leaving.append(group)
            done.transaction.deletes += group.row_ids
            if group.history.refused_status:
                evidence.forget(group.row_ids)
    return settlements


def abandon(groups: Sequence[Group], new_id: Callable[[], int]) -> Settlement:
    """Keep groups that leave memory without an outcome: events with a row are in it, the others get one."""
    settlement = Settlement(Transaction(), [])
    for group in groups:
        if group.row_id is None:
            kept = [*(entry for entry, _ in group.left), *group.entries[group.cut :]]
            settlement.transaction.inserts.append(NewGroup(new_id(), kept))
    return settlement


def divide(settlements: Iterable[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
    """Divide settlements into those that only change rows that are there, and those that need new ones."""
    settlements = list(settlements)
    old = [settlement for settlement in settlements if not settlement.transaction.inserts]
    return old, [settlement for settlement in settlements if settlement.transaction.inserts]


def halve(group: Group, new_id: Callable[[], int]) -> Settlement:
    """Make two groups of a suspect: each is suspect, and not yet tried alone."""
    middle = len(group.entries) // 2
    entries = [group.original(entry) for entry in group.entries]
    history = structs.replace(group.history, strikes=FAILURES_MAX)
    halves = [NewGroup(new_id(), part, history, group.received_at_ms) for part in (entries[:middle], entries[middle:])]
    return Settlement(Transaction(inserts=halves, deletes=group.row_ids), [group])


def bury(
    group: Group, reason: str, now_ms: int, error_type: str = POISON, is_meant: Callable[[Entry], bool] = lambda _: True
) -> Settlement:
    """Make dead letters of a group's events; those that are not meant stay in its row as they were."""
    dead: list[DeadLetter] = []
    kept: list[Entry] = []
    for entry in map(group.original, group.entries):
        if is_meant(entry):
            dead.append(DeadLetter(entry, error_type, reason, group.history, now_ms))
        else:
            kept.append(entry)
    group.kept = kept
    if kept:
        shrunk = Transaction(dead=dead)
        shrunk.shrinks += [(row_id, kept, group.history) for row_id in group.row_ids]
        return Settlement(shrunk, [group])
    return Settlement(Transaction(dead=dead, deletes=group.row_ids), [group])


def _prove(outcome: Outcome, history: History, *, is_next_round: bool) -> Outcome:
    """Return a refusal that is the event's own, and the strike or the death that it comes to."""
    is_about_it = outcome.status in OWN_FAULT
    is_struck = is_about_it or is_next_round
    is_last = is_struck and history.refusals + 1 >= (REFUSALS_MAX if is_about_it else REFUSALS_MAX_OF_OTHERS)
    verdict = Verdict.DEAD if is_last else Verdict.REFUSED
    return structs.replace(outcome, verdict=verdict, whole=False, is_own=True, is_struck=is_struck)


def _keep(group: Group, now_ms: int, new_id: Callable[[], int], evidence: Evidence) -> Settlement:
    """Keep the unsettled events of a group: the first part in its row, the others in new ones."""
    transaction = Transaction()
    row_id = new_id() if group.row_id is None else group.row_id
    for number, (history, entries) in enumerate(_divide_left(group, row_id, now_ms, evidence.failures).items()):
        part_id = new_id() if number else row_id
        evidence.note_left(part_id, history, is_struck=history.refusals > group.history.refusals)
        if number or group.row_id is None:
            transaction.inserts.append(NewGroup(part_id, entries, history, group.received_at_ms))
            continue
        group.kept = entries
        if len(entries) == len(group.entries):
            transaction.attempts.append((row_id, history))
        else:
            transaction.shrinks.append((row_id, entries, history))
    return Settlement(transaction, [group])


def _divide_left(group: Group, row_id: int, now_ms: int, failures: FailureHistory) -> dict[History, list[Entry]]:
    """Return the unsettled events of a group by the history that they have from now on."""
    is_single = group.is_alone and len(group.entries) == 1
    strikes = failures.count_failure(row_id, is_single=is_single) if group.is_blocked else 0
    tried = group.history.tried(now_ms, strikes)
    histories: dict[tuple[int, bool], History] = {}
    parts: dict[History, list[Entry]] = {}
    for entry, outcome in group.left:
        kind = (outcome.status, outcome.is_struck)
        history = histories.get(kind)
        if history is None:
            history = tried.refused(outcome.status, is_struck=outcome.is_struck) if outcome.status else tried
            histories[kind] = history
        parts.setdefault(history, []).append(group.original(entry))
    return parts


def _dead_letters(group: Group, entries: Sequence[Entry], outcomes: Sequence[Outcome], now_ms: int) -> list[DeadLetter]:
    return [
        DeadLetter(group.original(entry), outcome.error_type, outcome.reason, group.history.tried(now_ms), now_ms)
        for entry, outcome in zip(entries, outcomes, strict=True)
        if outcome.verdict is Verdict.DEAD
    ]
