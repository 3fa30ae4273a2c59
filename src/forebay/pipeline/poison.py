"""Poison: an event that blocks every bulk it is in.

No answer says so; it shows in what happens while the event is delivered. A delivery that ended as a whole, without a
word about single events (no answer in time, a connection reset, 5xx, an answer nobody expects), is a *strike* against a
group, which is kept with it in the spool; but only if another bulk was taken between the failure before it and this
one. A sink that is down takes nothing, so a day of it makes no strike. A sink with too much to do (429) makes none
either.

At `STRIKES_MAX` a group is suspect, which harms nobody: it is delivered alone (`suspects.py`), and innocent groups
arrive so. One that fails alone is halved, down to one event. That event dies only after as many strikes more, all of
them alone, and there the evidence is stricter: since its failure before, `OTHERS_MIN` other bulks were taken and no
usual one failed. So an innocent event that a shaky network meets by chance would have to meet it seven times in a row,
the last three times as the only one among ten.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from msgspec import structs

from forebay.model import BUSY, History, Outcome, Verdict

STRIKES_MAX = 3
"""From how many strikes on a group is suspect, and how many more a single event has that dies."""

OTHERS_MIN = 10
"""How many other bulks have to be taken between two failures of a single event for the second to be a strike."""

MARKS_MAX = 10_000
"""How many groups that failed are remembered; one that is forgotten has one failure more before it has a strike."""

POISON = "poison"
"""The `error_type` of the dead letter."""


class Step(enum.Enum):
    """What to do with a group."""

    TOGETHER = "together"  # deliver it with others
    ALONE = "alone"  # deliver it in a bulk of its own
    HALVE = "halve"  # make two groups of it
    BURY = "bury"  # it is one event, and a dead letter


def next_step(history: History, events: int) -> Step:
    """Say what to do with a group of so many events."""
    if history.strikes < STRIKES_MAX:
        return Step.TOGETHER
    if events > 1:
        return Step.HALVE if history.strikes > STRIKES_MAX else Step.ALONE
    return Step.BURY if history.strikes >= 2 * STRIKES_MAX else Step.ALONE


def halve(history: History) -> History:
    """Return the history of each half of a group: suspect, and not yet tried alone."""
    return structs.replace(history, strikes=STRIKES_MAX)


def blocks(outcome: Outcome) -> bool:
    """Say whether this is how a bulk ends that an event may have blocked."""
    return outcome.whole and outcome.verdict is Verdict.RETRY and outcome.error_type not in BUSY


class Mark(NamedTuple):
    """How far the sink had come when a group failed: bulks taken, and usual bulks failed."""

    taken: int
    failed: int


class Doubts:
    """What speaks against single groups, from how others fare. Belongs to the event loop.

    Attributes:
        taken: bulks of which the sink settled at least one event.
        failed: bulks of usual groups that failed as a whole.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.failed = 0
        self._marks: dict[int, Mark] = {}

    def mark(self, row_id: int) -> None:
        """Remember how things are at a failure of this group; later ones are compared with it."""
        self._marks.pop(row_id, None)
        if len(self._marks) >= MARKS_MAX:
            del self._marks[next(iter(self._marks))]
        self._marks[row_id] = Mark(self.taken, self.failed)

    def is_strike(self, row_id: int, *, single: bool) -> bool:
        """Say whether a failure of this group is a strike; `single` is one event that failed alone."""
        mark = self._marks.get(row_id)
        if mark is None or (single and self.failed > mark.failed):
            self.mark(row_id)
            return False
        if self.taken - mark.taken < (OTHERS_MIN if single else 1):
            return False
        self.mark(row_id)
        return True
