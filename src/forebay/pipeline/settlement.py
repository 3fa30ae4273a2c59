"""Settlement: from the outcomes of a bulk to what the spool has to write. No effects but on the groups' own counts.

Invariant 2: a row leaves the spool only in the transaction that settles every event in it. So a group is let go of, or
shrunk to what is left of it, when the last of its events has an outcome, and stays as it is until then: after a crash
its settled events are delivered once more and answered with "there already".

What is left of a group keeps one history for all of it. Where the sink refused some of it, or refused it differently,
each part gets a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from forebay.model import DELIVERED, DeadLetter, Entry, History, Outcome, Verdict
from forebay.pipeline.channel import Bulk
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.group import Group
from forebay.pipeline.poison import POISON, Doubts, halve
from forebay.spool.records import NewGroup, Transaction


class Settlement(NamedTuple):
    """What a bulk's outcomes come to: what to write, and which groups then leave memory."""

    transaction: Transaction
    leaving: list[Group]

    @property
    def is_parting(self) -> bool:
        """Whether it puts several rows in the place of one."""
        return bool(self.transaction.inserts) and any(group.row_id is not None for group in self.leaving)


def settle(
    bulk: Bulk, outcomes: Sequence[Outcome], now_ms: int, new_id: Callable[[], int], evidence: Evidence
) -> list[Settlement]:
    """Record every outcome of a bulk.

    `outcomes` stand in the order of the bulk's entries; `new_id` gives the number of a row for events that need one.
    Each group of which something is left has a settlement of its own: it may need room, and what makes room does not
    wait for it.
    """
    done = Settlement(Transaction(), [])
    settlements = [done]
    for group, entries, mine in bulk.pair(outcomes):
        if mine.count(DELIVERED) != len(mine):
            done.transaction.dead.extend(_dead_letters(group, entries, mine, now_ms))
        if not group.record(entries, mine):
            continue
        if group.left:
            settlements.append(_keep(group, now_ms, new_id, evidence))
        else:
            done.leaving.append(group)
            done.transaction.deletes += _rows(group)
            if group.history.refused_status:
                evidence.forget(_rows(group))
    return settlements


def abandon(groups: Sequence[Group], new_id: Callable[[], int]) -> Settlement:
    """Keep what leaves memory without an outcome: events with a row are in it, the others get one."""
    settlement = Settlement(Transaction(), [])
    for group in groups:
        if group.row_id is None:
            rest = [*(entry for entry, _ in group.left), *group.entries[group.taken :]]
            settlement.transaction.inserts.append(NewGroup(new_id(), rest))
    return settlement


def divide(settlements: Iterable[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
    """Divide settlements into those that only change rows that are there, and those that need new ones."""
    settlements = list(settlements)
    old = [settlement for settlement in settlements if not settlement.transaction.inserts]
    return old, [settlement for settlement in settlements if settlement.transaction.inserts]


def halve_group(group: Group, new_id: Callable[[], int]) -> Settlement:
    """Make two groups of one, suspects like it."""
    middle = len(group.entries) // 2
    entries = [group.original(entry) for entry in group.entries]
    parts = (entries[:middle], entries[middle:])
    halves = [NewGroup(new_id(), part, halve(group.history), group.received_at_ms) for part in parts]
    return Settlement(Transaction(inserts=halves, deletes=_rows(group)), [group])


def bury(
    group: Group, reason: str, now_ms: int, error_type: str = POISON, is_meant: Callable[[Entry], bool] = lambda _: True
) -> Settlement:
    """Make dead letters of a group's events; those that are not meant stay in its row as they were."""
    dead: list[DeadLetter] = []
    rest: list[Entry] = []
    for entry in map(group.original, group.entries):
        if is_meant(entry):
            dead.append(DeadLetter(entry, error_type, reason, group.history, now_ms))
        else:
            rest.append(entry)
    group.rest = rest
    if rest:
        shrunk = Transaction(dead=dead)
        shrunk.shrinks += [(row_id, rest, group.history) for row_id in _rows(group)]
        return Settlement(shrunk, [group])
    return Settlement(Transaction(dead=dead, deletes=_rows(group)), [group])


def _keep(group: Group, now_ms: int, new_id: Callable[[], int], evidence: Evidence) -> Settlement:
    """Keep what is left of a group: the first part in its row, the others in new ones."""
    transaction = Transaction()
    row_id = new_id() if group.row_id is None else group.row_id
    for number, (history, entries) in enumerate(_divide_left(group, row_id, now_ms, evidence.doubts).items()):
        part_id = new_id() if number else row_id
        evidence.remember(part_id, history, was_struck=history.refusals > group.history.refusals)
        if number or group.row_id is None:
            transaction.inserts.append(NewGroup(part_id, entries, history, group.received_at_ms))
            continue
        group.rest = entries
        if len(entries) == len(group.entries):
            transaction.attempts.append((row_id, history))
        else:
            transaction.shrinks.append((row_id, entries, history))
    return Settlement(transaction, [group])


def _divide_left(group: Group, row_id: int, now_ms: int, doubts: Doubts) -> dict[History, list[Entry]]:
    """Return what is left of a group by the history that it has from now on."""
    single = group.alone and len(group.entries) == 1
    tried = group.history.tried(now_ms, struck=group.blocked and doubts.is_strike(row_id, single=single))
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


def _rows(group: Group) -> list[int]:
    return [] if group.row_id is None else [group.row_id]


def _dead_letters(group: Group, entries: Sequence[Entry], outcomes: Sequence[Outcome], now_ms: int) -> list[DeadLetter]:
    return [
        DeadLetter(group.original(entry), outcome.error_type, outcome.reason, group.history.tried(now_ms), now_ms)
        for entry, outcome in zip(entries, outcomes, strict=True)
        if outcome.verdict is Verdict.DEAD
    ]
