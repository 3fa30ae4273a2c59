"""Takes the requests that commands left in the spool, and moves dead letters back.

Each function is one piece of work in the spool's thread. Commands leave requests by `beside/`.
"""

from __future__ import annotations

from forebay.clock import now_ms
from forebay.model import Entry
from forebay.spool.beside.requests import Burial
from forebay.spool.records import NewGroup
from forebay.spool.statements import SQL
from forebay.spool.store import Store

REPLAY_BYTES_MAX = 5 * 1024 * 1024
"""The most bytes of dead letters that one group gets; some letters died because they were large."""


def take(store: Store) -> frozenset[str]:
    """Take the requests, but for burials."""
    names = store.connection.execute(SQL["take_requests"]).fetchall()
    return frozenset(name for (name,) in names)


def list_burials(store: Store) -> list[Burial]:
    """Return the burials that commands asked for; each stays until it is forgotten."""
    return [Burial.read(name) for (name,) in store.connection.execute(SQL["list_burials"])]


def forget_burial(store: Store, burial: Burial) -> None:
    """Delete the request for a burial that is done."""
    store.connection.execute(SQL["forget_request"], (burial.request,))


def replay(store: Store, group_id: int, events_max: int) -> tuple[int, int]:
    """Move dead letters that are requested for replay into a new group; return its events and stored bytes.

    The first letter is moved whatever its size.
    """
    bytes_left = REPLAY_BYTES_MAX
    moved: list[int] = []
    entries: list[Entry] = []
    with store.transaction():
        for dead_id, entry in store.connection.execute(SQL["list_replays"], (events_max,)):
            bytes_left -= len(entry)
            if entries and bytes_left < 0:
                break
            moved.append(dead_id)
            entries.append(entry)
        if not entries:
            return 0, 0
        stored_bytes = store.insert(NewGroup(group_id, entries), now_ms())
        store.connection.executemany(SQL["delete_dead"], ((dead_id,) for dead_id in moved))
    return len(entries), stored_bytes
