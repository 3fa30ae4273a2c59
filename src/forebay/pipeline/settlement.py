"""Settlement: from the outcomes of a bulk to what the spool has to write. No effects but on the groups' own counts.

Invariant 2: a row leaves the spool only in the transaction that settles every event in it. So a group is let go of, or
shrunk to what is left of it, when the last of its events has an outcome, and stays as it is until then: after a crash
its settled events are delivered once more and answered with "there already".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from forebay.model import DELIVERED, DeadLetter, Entry, Outcome, Verdict
from forebay.pipeline.channel import Bulk
from forebay.pipeline.group import Group
from forebay.spool.records import NewGroup, Transaction


class Settlement(NamedTuple):
    """What a bulk's outcomes come to: what to write, and which groups then leave memory."""

    transaction: Transaction
    leaving: list[Group]


def settle(bulk: Bulk, outcomes: Sequence[Outcome], now_ms: int, new_id: Callable[[], int]) -> Settlement:
    """Record every outcome of a bulk.

    `outcomes` stand in the order of the bulk's entries; `new_id` gives the number of a row for events that never had
    one.
    """
    settlement = Settlement(Transaction(), [])
    start = 0
    for group, entries in bulk.slices:
        mine = outcomes[start : start + len(entries)]
        start += len(entries)
        if mine.count(DELIVERED) != len(mine):
            settlement.transaction.dead.extend(_dead_letters(group, entries, mine, now_ms))
        if group.record(entries, mine):
            settlement.leaving.append(group)
            _let_go(group, settlement.transaction, now_ms, new_id)
    return settlement


def abandon(groups: Sequence[Group], new_id: Callable[[], int]) -> Settlement:
    """Keep what has no outcome at shutdown: events with a row are in it, the others get one."""
    settlement = Settlement(Transaction(), [])
    for group in groups:
        if group.row_id is None:
            rest = [*group.rest, *group.entries[group.taken :]]
            settlement.transaction.inserts.append(NewGroup(new_id(), rest))
    return settlement


def _let_go(group: Group, transaction: Transaction, now_ms: int, new_id: Callable[[], int]) -> None:
    if not group.rest:
        if group.row_id is not None:
            transaction.deletes.append(group.row_id)
        return
    history = group.history.tried(now_ms)
    if group.row_id is None:
        transaction.inserts.append(NewGroup(new_id(), group.rest, history))
    elif len(group.rest) == len(group.entries):
        transaction.attempts.append((group.row_id, history))
    else:
        transaction.shrinks.append((group.row_id, group.rest, history))


def _dead_letters(group: Group, entries: Sequence[Entry], outcomes: Sequence[Outcome], now_ms: int) -> list[DeadLetter]:
    return [
        DeadLetter(entry, outcome.error_type, outcome.reason, group.history.tried(now_ms), now_ms)
        for entry, outcome in zip(entries, outcomes, strict=True)
        if outcome.verdict is Verdict.DEAD
    ]
