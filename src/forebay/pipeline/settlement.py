"""Settlement: from the outcomes of a bulk to the rows that the spool deletes, shrinks and adds.

Invariant 2: a row leaves the spool only in the transaction that settles every event in it. So a group is let go of, or
shrunk to its unsettled events, when the last of its events has an outcome, or when the rest leaves memory untried. It
stays as it is until then: after a crash its settled events are delivered once more and answered with "there already".
The rest of a group keeps one history for all of it. If the sink refused some of it, or refused it differently, or was
not asked about some of it, each part gets a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import structs

from forebay.history import DeadLetter, History
from forebay.model import Entry, Outcome, Verdict, are_delivered
from forebay.pipeline.evidence import FAILURES_MAX, Evidence, FailureHistory
from forebay.pipeline.group import Bulk, Group, Settlement
from forebay.spool.records import NewGroup, Transaction

POISON = "poison"
"""The `error_type` of the dead letter."""


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
        if not are_delivered(mine):
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


def abandon(groups: Sequence[Group], now_ms: int, new_id: Callable[[], int], evidence: Evidence) -> list[Settlement]:
    """Return the settlements of groups that leave memory before a bulk took all of them, with nothing in flight.

    A group of which no bulk took anything is pending again as it is, and one without a row gets one.
    """
    return [_keep(group, now_ms, new_id, evidence) for group in groups]


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


def _keep(group: Group, now_ms: int, new_id: Callable[[], int], evidence: Evidence) -> Settlement:
    """Keep the unsettled events of a group: the first part in its row, the others in new ones."""
    transaction = Transaction()
    row_id = new_id() if group.row_id is None else group.row_id
    for number, (history, entries) in enumerate(_divide_left(group, row_id, now_ms, evidence.failures).items()):
        part_id = new_id() if number else row_id
        is_tried = history != group.history
        if is_tried:
            evidence.note_left(part_id, history, is_struck=history.refusals > group.history.refusals)
        if number or group.row_id is None:
            transaction.inserts.append(NewGroup(part_id, entries, history, group.received_at_ms))
            continue
        group.kept = entries
        if len(entries) < len(group.entries):
            transaction.shrinks.append((row_id, entries, history))
        elif is_tried:
            transaction.attempts.append((row_id, history))
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
    if group.open:
        parts[group.history] = [group.original(entry) for entry in group.entries[group.cut :]]
    return parts


def _dead_letters(group: Group, entries: Sequence[Entry], outcomes: Sequence[Outcome], now_ms: int) -> list[DeadLetter]:
    return [
        DeadLetter(group.original(entry), outcome.error_type, outcome.reason, group.history.tried(now_ms), now_ms)
        for entry, outcome in zip(entries, outcomes, strict=True)
        if outcome.verdict is Verdict.DEAD
    ]
