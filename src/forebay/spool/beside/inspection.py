"""What commands read from a spool, and ask of its owner, while the owner is at work or without one.

Nothing here moves an event: the owner alone does that. A command marks and asks, and its transactions are short, as the
owner's commits wait for them.
"""

from __future__ import annotations

import contextlib
import enum
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forebay.clock import now_ms
from forebay.errors import SpoolError
from forebay.model import Entry, History
from forebay.spool import database, writing
from forebay.spool.burials import Burial
from forebay.spool.codec import BodyCodec
from forebay.spool.records import GroupDamaged, Totals
from forebay.spool.statements import SQL

CHUNK_ROWS = 500
"""How many dead letters one transaction marks or deletes."""


class Request(enum.StrEnum):
    """What can be asked of the owner."""

    RETRY = "retry"  # redeliver pending events now
    REPLAY = "replay"  # move the marked dead letters back


class Summary(NamedTuple):
    """How much the spool holds now, and since when it holds what is redelivered first."""

    totals: Totals
    oldest_at_ms: int | None


class PendingEvent(NamedTuple):
    """An event that is not settled; history and time of receipt are those of its group."""

    entry: Entry
    history: History
    received_at_ms: int


class MeantEvents(NamedTuple):
    """The pending events that a command means.

    Attributes:
        by_index: how many there are of each index.
        entry_bytes: what they take as dead letters, which are not compressed.
        log_ids: theirs, of those that the command names.
    """

    by_index: Counter[str]
    entry_bytes: int
    log_ids: frozenset[str]


class StoredLetter(NamedTuple):
    """A dead letter as it was read; `id` is that of its row, `marked` where the owner is to move it back."""

    id: int
    index_name: str
    log_id: str
    error_type: str
    reason: str
    history: History
    died_at_ms: int
    marked: bool
    entry: Entry


class DeadCount(NamedTuple):
    """How many dead letters there are, and how many of them are marked for replay."""

    letters: int
    marked: int


class Choice(NamedTuple):
    """Which dead letters are meant: those that fit all that is given; where nothing is, all.

    Attributes:
        log_ids: one of them.
        error_type: this one.
        reason: the letter's reason contains it, in small or large letters.
        index_name: this one.
        died_before_ms: died earlier, in milliseconds since 1970.
        died_after_ms: died then or later.
    """

    log_ids: tuple[str, ...] = ()
    error_type: str | None = None
    reason: str | None = None
    index_name: str | None = None
    died_before_ms: int | None = None
    died_after_ms: int | None = None

    def parameters(self) -> dict[str, Any]:
        """Return what the statements take."""
        return self._asdict() | {"log_ids": json.dumps(self.log_ids) if self.log_ids else None}


class Inspection:
    """A command's hold on a spool; `inspect` gives one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def summarize(self) -> Summary:
        """Tell how much the spool holds, without counting."""
        oldest = self._connection.execute(SQL["oldest_group"]).fetchone()
        return Summary(writing.read_totals(self._connection), oldest and oldest[0])

    def has_work(self, died_before_ms: int) -> bool:
        """Return whether there is anything for an owner to do.

        That is events, requests, and dead letters that are marked for replay or died before `died_before_ms`.
        """
        (has_work,) = self._connection.execute(SQL["has_work"], (died_before_ms,)).fetchone()
        return bool(has_work)

    def list_pending(self, events_max: int) -> Iterator[PendingEvent | GroupDamaged]:
        """Go through the events that are not settled, oldest first; a damaged group stands for its events.

        Each group is read when its turn comes, by a query of its own: one that stayed open while a person reads would
        hold up the owner's checkpoints.
        """
        codec = BodyCodec()
        group_id = -1
        while events_max > 0:
            row = self._connection.execute(SQL["next_group"], (group_id,)).fetchone()
            if row is None:
                return
            group_id = row[0]
            try:
                group = writing.read_group(codec, row)
            except ValueError as error:
                yield GroupDamaged(group_id, str(error))
                continue
            for entry in group.entries[:events_max]:
                yield PendingEvent(entry, group.history, group.received_at_ms)
            events_max -= len(group.entries)

    def find_meant(self, burial: Burial) -> MeantEvents:
        """Count the pending events that a command means; what cannot be read is left out."""
        if burial.log_ids:
            return self._find_named(burial)
        counts = self._connection.execute(SQL["count_pending_where"], burial.parameters()).fetchall()
        by_index = Counter({index: events for index, events, _ in counts})
        return MeantEvents(by_index, sum(entry_bytes for _, _, entry_bytes in counts), frozenset())

    def _find_named(self, burial: Burial) -> MeantEvents:
        codec = BodyCodec()
        found: list[Entry] = []
        rows = self._connection.execute(SQL["list_pending_where"], burial.parameters()).fetchall()
        for group_id in rows:
            row = self._connection.execute(SQL["load_group"], group_id).fetchone()
            # One that was settled meanwhile is not there any more.
            if row is not None:
                with contextlib.suppress(ValueError):
                    found += filter(burial.fits, writing.read_group(codec, row).entries)
        addresses = [writing.dead_address(entry) for entry in found]
        return MeantEvents(
            Counter(address.index for address in addresses),
            sum(map(len, found)),
            frozenset(address.log_id for address in addresses),
        )

    def list_dead(self, choice: Choice, letters_max: int) -> list[StoredLetter]:
        """Return dead letters, newest first."""
        rows = self._connection.execute(SQL["list_dead"], choice.parameters() | {"limit": letters_max}).fetchall()
        return [_read_letter(row) for row in rows]

    def count_dead(self, choice: Choice) -> DeadCount:
        """Count dead letters."""
        return DeadCount(*self._connection.execute(SQL["count_dead_where"], choice.parameters()).fetchone())

    def mark_for_replay(self, choice: Choice) -> int:
        """Mark dead letters for the owner to move back once it is asked to; return how many were not marked yet."""
        return self._change("mark_replay_where", choice)

    def purge(self, choice: Choice) -> int:
        """Delete dead letters but for those that are marked for replay; return how many went."""
        return self._change("purge_dead_where", choice)

    def correct(self, letter: StoredLetter, entry: Entry, *, mark: bool) -> bool:
        """Replace a letter's entry and, where `mark` says so, mark it for replay.

        Returns:
            False where the letter is not as it was read any more, or is on its way back; nothing was changed then.
        """
        row = {"id": letter.id, "read_entry": letter.entry, "entry": entry, "replay": int(mark)}
        return self._connection.execute(SQL["correct_dead"], row).rowcount == 1

    def ask(self, request: Request | Burial) -> None:
        """Leave a request; the owner looks for it every second, and when it starts."""
        name = request.request if isinstance(request, Burial) else request.value
        self._connection.execute(SQL["ask"], (name, now_ms()))

    def _change(self, statement: str, choice: Choice) -> int:
        """Go once through the dead letters that are meant, some in each transaction; return how many were changed."""
        if choice.died_before_ms is None:
            # What is replayed may die again while this goes on.
            choice = choice._replace(died_before_ms=now_ms() + 1)
        parameters: dict[str, Any] = choice.parameters() | {"after_id": 0, "limit": CHUNK_ROWS}
        changed = 0
        while rows := self._connection.execute(SQL[statement], parameters).fetchall():
            changed += len(rows)
            parameters["after_id"] = max(letter_id for (letter_id,) in rows)
        return changed


@contextlib.contextmanager
def inspect(path: Path) -> Iterator[Inspection]:
    """Open a spool for a command.

    Raises:
        SpoolUnusable: there is no spool at that path, or it cannot be read.
        SpoolError: SQLite failed while the spool was looked at.
    """
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(contextlib.closing(database.connect_beside(path)))
        try:
            # Closed behind the other, so that the log stays as it is for the owner.
            last = stack.enter_context(contextlib.closing(database.connect_to_read(path)))
            last.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            stack.callback(connection.close)
            # SQLite's own functions know the case of ASCII letters alone.
            connection.create_function("fold", 1, str.casefold, deterministic=True)
            yield Inspection(connection)
        except sqlite3.Error as error:
            raise SpoolError(f"DATABASE_URL: {path}: {error}") from error


def _read_letter(row: Sequence[Any]) -> StoredLetter:
    letter_id, index_name, log_id, error_type, reason, attempts, times, died_at_ms, replay, entry = row
    try:
        history = writing.read_history(attempts, times)
    except ValueError:
        # Damaged: the letter is shown all the same.
        history = History(attempts)
    return StoredLetter(letter_id, index_name, log_id, error_type, reason, history, died_at_ms, bool(replay), entry)
