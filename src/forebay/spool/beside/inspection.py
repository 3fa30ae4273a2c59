"""One spool, for a command: its pending events and dead letters, and requests to its owner.

Nothing here moves an event: only the owner does that. The transactions of commands are short, as the owner's commits
wait for them.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forebay.clock import now_ms
from forebay.errors import GroupDamaged, SpoolError
from forebay.history import History
from forebay.model import Entry
from forebay.spool import statements
from forebay.spool.beside.connecting import connect_beside, reading
from forebay.spool.beside.requests import Burial, Request
from forebay.spool.codec import GroupCodec, dead_address, read_history
from forebay.spool.records import Totals

SQL = statements.SQL | statements.read_statements("forebay.spool.beside")

CHUNK_ROWS = 500
"""The most dead letters that one transaction changes or deletes."""

CHUNK_BYTES = 1024 * 1024
"""The most bytes of their entries, as all pages of a large one are written or freed; the first has any size."""


class Summary(NamedTuple):
    """The totals, and the time at which the oldest group was received."""

    totals: Totals
    oldest_at_ms: int | None


class PendingEvent(NamedTuple):
    """A pending event, with the history and the time of receipt of its group."""

    entry: Entry
    history: History
    received_at_ms: int


class MeantEvents(NamedTuple):
    """The pending events that a command means.

    Attributes:
        by_index: their number by index.
        entry_bytes: their size as dead letters, which are not compressed.
        log_ids: those of their `log_id`s that the command names.
    """

    by_index: Counter[str]
    entry_bytes: int
    log_ids: frozenset[str]


class StoredLetter(NamedTuple):
    """A dead letter that was read; `id` is that of its row, `is_to_replay` if a command asked for its replay."""

    id: int
    index_name: str
    log_id: str
    error_type: str
    reason: str
    history: History
    died_at_ms: int
    is_to_replay: bool
    entry: Entry


class DeadCount(NamedTuple):
    """The number of dead letters, and of those among them that are requested for replay."""

    letters: int
    to_replay: int


class Choice(NamedTuple):
    """A choice of dead letters: those that fit every given field, or all if none is given.

    Attributes:
        log_ids: letters with one of these.
        error_type: letters of this type.
        reason: letters whose reason contains this text, in small or large letters.
        index_name: letters of this index.
        died_before_ms: letters that died before this time, in milliseconds since 1970.
        died_after_ms: letters that died at this time or later.
        started_ms: letters that did not die between this time, at which the command started, and now. One that is dated
            later than now died before it, when the clock was ahead.
    """

    log_ids: tuple[str, ...] = ()
    error_type: str | None = None
    reason: str | None = None
    index_name: str | None = None
    died_before_ms: int | None = None
    died_after_ms: int | None = None
    started_ms: int | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the choice as parameters of the statements at this moment."""
        log_ids = json.dumps(self.log_ids) if self.log_ids else None
        return self._asdict() | {"log_ids": log_ids, "now_ms": now_ms()}


class Inspection:
    """A spool that a command has open; `inspect` makes one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def summarize(self) -> Summary:
        """Return the totals, without counting."""
        oldest = self._connection.execute(SQL["oldest_group"]).fetchone()
        totals = Totals(*self._connection.execute(SQL["totals"]).fetchone())
        return Summary(totals, oldest and oldest[0])

    def has_work(self, died_before_ms: int) -> bool:
        """Return whether there is work for an owner.

        Work is events, requests, and dead letters that are to be replayed or died before `died_before_ms`.
        """
        (has_work,) = self._connection.execute(SQL["has_work"], (died_before_ms,)).fetchone()
        return bool(has_work)

    def list_pending(self, events_max: int) -> Iterator[PendingEvent | GroupDamaged]:
        """Go through the pending events, oldest first; a damaged group stands for its events.

        Each group is read when its turn comes, by a query of its own. A query that stayed open while a person reads
        would delay the owner's checkpoints.
        """
        codec = GroupCodec()
        group_id = -1
        while events_max > 0:
            row = self._connection.execute(SQL["next_group"], (group_id,)).fetchone()
            if row is None:
                return
            group_id = row[0]
            try:
                group = codec.read_group(row)
            except ValueError as error:
                yield GroupDamaged(group_id, str(error))
                continue
            for entry in group.entries[:events_max]:
                yield PendingEvent(entry, group.history, group.received_at_ms)
            events_max -= len(group.entries)

    def find_meant(self, burial: Burial) -> MeantEvents:
        """Count the pending events that a command means; damaged groups are left out."""
        if burial.log_ids:
            return self._find_named(burial)
        counts = self._connection.execute(SQL["count_pending_where"], burial.parameters()).fetchall()
        by_index = Counter({index: events for index, events, _ in counts})
        return MeantEvents(by_index, sum(entry_bytes for _, _, entry_bytes in counts), frozenset())

    def _find_named(self, burial: Burial) -> MeantEvents:
        codec = GroupCodec()
        found: list[Entry] = []
        rows = self._connection.execute(SQL["list_pending_where"], burial.parameters()).fetchall()
        for group_id in rows:
            row = self._connection.execute(SQL["load_group"], group_id).fetchone()
            # The group may have been settled meanwhile.
            if row is not None:
                with contextlib.suppress(ValueError):
                    found += filter(burial.fits, codec.read_group(row).entries)
        addresses = [dead_address(entry) for entry in found]
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

    def request_replay(self, choice: Choice) -> int:
        """Request the replay of dead letters; return the number of those that were not requested before.

        The owner moves them back as soon as it is asked.
        """
        return self._change("request_replay_found", choice)

    def purge(self, choice: Choice) -> int:
        """Delete dead letters that are not requested for replay; return their number."""
        return self._change("purge_dead_found", choice)

    def correct(self, letter: StoredLetter, entry: Entry, *, replay: bool) -> bool:
        """Replace a letter's entry, and request its replay if `replay`.

        Returns:
            False if the letter has changed since it was read, or its replay is requested; then nothing is changed.
        """
        row = {"id": letter.id, "read_entry": letter.entry, "entry": entry, "replay": int(replay)}
        return self._connection.execute(SQL["correct_dead"], row).rowcount == 1

    def ask(self, request: Request | Burial) -> None:
        """Leave a request; the owner takes it within a second, or at its next start."""
        name = request.request if isinstance(request, Burial) else request.value
        self._connection.execute(SQL["ask"], (name, now_ms()))

    def _change(self, statement: str, choice: Choice) -> int:
        """Change each chosen dead letter once, some in each transaction; return their number."""
        if choice.started_ms is None:
            # A replayed event may die again meanwhile: its new letter is left alone.
            choice = choice._replace(started_ms=now_ms() + 1)
        changed = after_id = 0
        while found := self._find_some(choice, after_id):
            # Those that were replayed, deleted, or died again since then do not fit any more.
            parameters = choice.parameters() | {"found": json.dumps(found)}
            changed += self._connection.execute(SQL[statement], parameters).rowcount
            after_id = found[-1]
        return changed

    def _find_some(self, choice: Choice, after_id: int) -> list[int]:
        """Return the chosen dead letters behind a given one, as many as one transaction changes.

        Reading takes no lock. A transaction that looked for them itself would lock out the owner for as long.
        """
        bytes_left = CHUNK_BYTES
        found: list[int] = []
        parameters = choice.parameters() | {"after_id": after_id, "limit": CHUNK_ROWS}
        with contextlib.closing(self._connection.execute(SQL["find_dead_where"], parameters)) as rows:
            for letter_id, entry_bytes in rows:
                bytes_left -= entry_bytes
                if found and bytes_left < 0:
                    break
                found.append(letter_id)
        return found


@contextlib.contextmanager
def inspect(path: Path) -> Iterator[Inspection]:
    """Open a spool for a command.

    Raises:
        SpoolUnusable: there is no spool at that path, or it cannot be read.
        SpoolError: SQLite failed meanwhile.
    """
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(contextlib.closing(connect_beside(path)))
        try:
            # Closed after the other one, so that the log stays as it is for the owner.
            stack.enter_context(reading(path))
            stack.callback(connection.close)
            # SQLite's own functions know the case of ASCII letters only.
            connection.create_function("fold", 1, str.casefold, deterministic=True)
            yield Inspection(connection)
        except sqlite3.Error as error:
            raise SpoolError(f"DATABASE_URL: {path}: {error}") from error


def _read_letter(row: Sequence[Any]) -> StoredLetter:
    letter_id, index_name, log_id, error_type, reason, attempts, times, died_at_ms, replay, entry = row
    try:
        history = read_history(attempts, times)
    except ValueError:
        # The times are damaged; the letter is shown all the same.
        history = History(attempts)
    return StoredLetter(letter_id, index_name, log_id, error_type, reason, history, died_at_ms, bool(replay), entry)
