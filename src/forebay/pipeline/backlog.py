"""The backlog: what waits to be written, and what of it the next commit takes.

On a full disk it is the insertions that fail. So a commit that failed is tried again with less, first without what
clients send, then with only what needs no new row: deletions make room.
"""

from __future__ import annotations

import enum

from forebay.pipeline.packing import Submission
from forebay.pipeline.settlement import Settlement, divide


class Reach(enum.Enum):
    """What the next commit takes."""

    ALL = "all"
    SETTLEMENTS = "settlements"
    OLD_ROWS = "old rows"  # what settlements change or delete, and not what they would insert


class Backlog:
    """What waits for the commit that is under way to end.

    Attributes:
        submissions: what clients sent.
        settlements: what became of bulks.
        is_behind: whether there are settlements that the spool could not take.
        may_succeed: whether the next commit asks for less than the one that failed, or for something else.
    """

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.settlements: list[Settlement] = []
        self.is_behind = False
        self.may_succeed = True
        self._reach = Reach.ALL

    def take(self) -> tuple[list[Submission], list[Settlement]]:
        """Take out what the next commit is to write."""
        submissions: list[Submission] = []
        if self._reach is Reach.ALL:
            submissions, self.submissions = self.submissions, []
        settlements, self.settlements = self.settlements, []
        if self._reach is Reach.OLD_ROWS:
            settlements, self.settlements = divide(settlements)
        return submissions, settlements

    def note_success(self) -> None:
        """Take note that what was taken has been written."""
        # What was left out of it could not be written before.
        self.is_behind = self._reach is Reach.OLD_ROWS and bool(self.settlements)
        self._reach = Reach.ALL

    def put_back(self, settlements: list[Settlement], *, had_submissions: bool) -> bool:
        """Take back settlements that could not be written; return whether any of them is of rows that are there."""
        old_rows, new_rows = divide(settlements)
        self.is_behind = self.is_behind or bool(settlements)
        self.settlements = settlements + self.settlements
        self._reach = Reach.ALL
        self.may_succeed = True
        if had_submissions and self.settlements:
            self._reach = Reach.SETTLEMENTS
        elif old_rows and new_rows:
            self._reach = Reach.OLD_ROWS
        else:
            self.may_succeed = not self.settlements
        return bool(old_rows)
