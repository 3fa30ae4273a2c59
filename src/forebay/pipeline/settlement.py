"""Settlement: from the outcomes of a bulk to what the spool has to write. No effects but on the groups' own counts.

Invariant 2: a row leaves the spool only in the transaction that settles every event in it. So a group is let go of, or
shrunk to what is left of it, when the last of its events has an outcome, and stays as it is until then: after a crash
its settled events are delivered once more and answered with "there already".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from forebay.model import DELIVERED, DeadLetter, Entry, Outcome, Verdict
from forebay.pipeline.channel import Bulk
from forebay.pipeline.group import Group
from forebay.pipeline.poison import POISON, Doubts, halve
from forebay.spool.records import NewGroup, Transaction


class Settlement(NamedTuple):
    """What a bulk's outcomes come to: what to write, and which groups then leave memory."""

    transaction: Transaction
    leaving: list[Group]


def settle(
    bulk: Bulk, outcomes: Sequence[Outcome], now_ms: int, new_id: Callable[[], int], doubts: Doubts
) -> Settlement:
    """Record every outcome of a bulk.

    `outcomes` stand in the order of the bulk's entries; `new_id` gives the number of a row for events that never had
    one; `doubts` says whether a failure is a strike.
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
            _let_go(group, settlement.transaction, now_ms, new_id, doubts)
    return settlement


def abandon(groups: Sequence[Group], new_id: Callable[[], int]) -> Settlement:
    """Keep what leaves memory without an outcome: events with a row are in it, the others get one."""
    settlement = Settlement(Transaction(), [])
    for group in groups:
        if group.row_id is None:
            rest = [*group.rest, *group.entries[group.taken :]]
            settlement.transaction.inserts.append(NewGroup(new_id(), rest))
    settlement.transaction.absorb(end_trials(groups).transaction)
    return settlement


def put_back(groups: Sequence[Group], new_id: Callable[[], int]) -> Settlement:
    """Let groups leave memory of which no bulk has taken a part."""
    on_trial = [group for group in groups if group.on_trial]
    for group in on_trial:
        group.rest = group.entries
    return Settlement(abandon(groups, new_id).transaction, on_trial)


def end_trials(groups: Iterable[Group]) -> Settlement:
    """Take back the strikes that were only for the case that the process ends."""
    settlement = Settlement(Transaction(), [])
    for group in groups:
        if group.on_trial and group.row_id is not None:
            group.on_trial = False
            settlement.transaction.attempts.append((group.row_id, group.history))
    return settlement


def divide(settlements: Iterable[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
    """Divide settlements into what they do to rows that are there, and what gets a row only by them.

    One that puts rows in the place of others stays whole, with the latter: all of it has to be written together.
    """
    parts = [_divide(settlement) for settlement in settlements]
    return [old for old, _ in parts if old.transaction], [new for _, new in parts if new.transaction]


def _divide(settlement: Settlement) -> tuple[Settlement, Settlement]:
    transaction, leaving = settlement
    without_row = [group for group in leaving if group.row_id is None and group.rest]
    if len(without_row) != len(transaction.inserts):
        return Settlement(Transaction(), []), settlement
    old = Transaction(
        deletes=transaction.deletes, shrinks=transaction.shrinks, attempts=transaction.attempts, dead=transaction.dead
    )
    with_row = [group for group in leaving if group.row_id is not None]
    return Settlement(old, with_row), Settlement(Transaction(inserts=transaction.inserts), without_row)


def halve_group(group: Group, new_id: Callable[[], int]) -> Settlement:
    """Make two groups of one, suspects like it."""
    middle = len(group.entries) // 2
    halves = [
        NewGroup(new_id(), part, halve(group.history)) for part in (group.entries[:middle], group.entries[middle:])
    ]
    return Settlement(Transaction(inserts=halves, deletes=_rows(group)), [group])


def bury(group: Group, reason: str, now_ms: int) -> Settlement:
    """Make dead letters of a group's events because they are poison."""
    dead = [DeadLetter(entry, POISON, reason, group.history, now_ms) for entry in group.entries]
    return Settlement(Transaction(dead=dead, deletes=_rows(group)), [group])


def _let_go(group: Group, transaction: Transaction, now_ms: int, new_id: Callable[[], int], doubts: Doubts) -> None:
    if not group.rest:
        transaction.deletes += _rows(group)
        return
    group.on_trial = False
    row_id = new_id() if group.row_id is None else group.row_id
    single = group.alone and len(group.entries) == 1
    history = group.history.tried(now_ms, struck=group.blocked and doubts.is_strike(row_id, single=single))
    if group.row_id is None:
        transaction.inserts.append(NewGroup(row_id, group.rest, history))
    elif len(group.rest) == len(group.entries):
        transaction.attempts.append((row_id, history))
    else:
        transaction.shrinks.append((row_id, group.rest, history))


def _rows(group: Group) -> list[int]:
    return [] if group.row_id is None else [group.row_id]


def _dead_letters(group: Group, entries: Sequence[Entry], outcomes: Sequence[Outcome], now_ms: int) -> list[DeadLetter]:
    return [
        DeadLetter(entry, outcome.error_type, outcome.reason, group.history.tried(now_ms), now_ms)
        for entry, outcome in zip(entries, outcomes, strict=True)
        if outcome.verdict is Verdict.DEAD
    ]
