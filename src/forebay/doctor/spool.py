"""Checks one spool: its owner, its events, its dead letters, and the incidents of its file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from forebay.clock import now_ms
from forebay.doctor import spool_state
from forebay.doctor.context import Context
from forebay.doctor.finding import SHOWN_MAX, Finding, enumerate_some, fail, ok, warn
from forebay.doctor.spool_pending import Drain, judge_pending, measure_drain
from forebay.doctor.spool_state import INCIDENT_DAYS, Incident, SpoolState
from forebay.errors import SpoolError
from forebay.spool.files import SpoolFiles

WATCH_S = 3.0
"""The time between the two readings that show whether events move."""


def check(context: Context) -> Iterator[Finding]:
    """Check a spool, and watch it for some seconds if a server is at work on it."""
    path, settings = context.spool, context.settings
    owner = spool_state.find_owner(path)
    if path.exists():
        settle_s = settings.bulk_interval_s + settings.bulk_timeout_s
        yield from _check_content(path, owner, settle_s, is_workers=path != settings.database_url)
    else:
        yield judge_absence(path, owner)
    files = SpoolFiles(path)
    is_damaged, is_in_doubt = files.damage_marker.exists(), files.doubt.exists()
    yield from judge_damage(files.list_moved_away(), is_damaged=is_damaged, is_in_doubt=is_in_doubt)


def _check_content(path: Path, owner: str | None, settle_s: float, *, is_workers: bool) -> Iterator[Finding]:
    try:
        state = spool_state.read_state(path)
        drain = _watch(path, state) if owner is not None and state.totals.events else None
    except SpoolError as error:
        yield fail(str(error), "see the server's line and its log before you restart it")
        return
    yield judge_owner(owner, state, is_workers=is_workers)
    yield judge_pending(state, drain, now_ms(), settle_s)
    yield from judge_refused(state.refused)
    yield judge_dead(state.dead_types)
    yield from judge_incidents(state.incidents)


def _watch(path: Path, first: SpoolState) -> Drain:
    time.sleep(WATCH_S)
    second = spool_state.read_state(path)
    return measure_drain(first, second, spool_state.count_left(path, first.last_id))


def judge_absence(path: Path, owner: str | None) -> Finding:
    """Judge the lack of a database."""
    text = f"there is no database at {path}"
    if owner is None:
        return warn(text, "start the server if none runs, or run this in the folder that it runs in")
    return fail(
        f"{text}, though {owner} has it open: it was removed while the server runs",
        "do not end that server before everything is delivered; /health/ready tells more",
    )


def judge_owner(owner: str | None, state: SpoolState, *, is_workers: bool) -> Finding:
    """Judge the owner of a spool. A worker's spool (`is_workers`) without an owner is an orphan."""
    if owner is not None:
        return ok(f"open by {owner}")
    if not is_workers:
        return warn("no server has it open", "start the server if none runs; its events wait and are safe")
    events, dead_letters = state.totals.events, state.totals.dead_letters
    if events or dead_letters:
        text = f"an orphan, with {events} events and {dead_letters} dead letters"
        return warn(text, "the running server delivers its events by itself; /health/ready tells why if it cannot")
    return ok("an orphan, and empty")


def judge_refused(refused: Mapping[int, int]) -> Iterator[Finding]:
    """Judge the pending events that were refused: without evidence against them they wait, for ever if need be."""
    if refused:
        shown = ", ".join(f"{events} with {status}" for status, events in list(refused.items())[:SHOWN_MAX])
        yield warn(
            f"{sum(refused.values())} of them were refused, and are tried again: {shown}",
            "they arrive, or become dead letters, once others of their index are taken; `forebay pending list` shows "
            "them, `forebay pending bury --refused` makes dead letters of them now",
        )


def judge_dead(dead_types: Mapping[str, int]) -> Finding:
    """Judge the dead letters: each waits for a person."""
    if not dead_types:
        return ok("no dead letters")
    shown = enumerate_some([f"{count} {error_type}" for error_type, count in dead_types.items()], more="more types")
    advice = "`forebay dead show --type TYPE` tells why; then `edit`, `replay` or `purge`"
    return warn(f"{sum(dead_types.values())} dead letters: {shown}", advice)


def judge_incidents(incidents: Sequence[Incident]) -> Iterator[Finding]:
    """Return a warning for each of the latest incidents."""
    for incident in incidents[:SHOWN_MAX]:
        at = datetime.fromtimestamp(incident.at_ms / 1000, UTC).isoformat(timespec="seconds")
        text = f"{at} {incident.kind}: {incident.detail}"
        yield warn(text, f"find out its cause; it is shown for {INCIDENT_DAYS} days")


def judge_damage(moved_away: Sequence[Path], *, is_damaged: bool, is_in_doubt: bool) -> Iterator[Finding]:
    """Judge a file that waits for its repair, a log that waits to be written again, and files that were moved away."""
    if is_in_doubt:
        advice = "see the disk; a restart of the server writes the log once more, and takes events if that works"
        yield fail("a sync of its log failed", advice)
    if is_damaged:
        advice = "restart the server: it moves the file away and saves every event that can be read"
        yield fail("it was found to be damaged", advice)
    if moved_away:
        names = ", ".join(path.name for path in moved_away[:SHOWN_MAX])
        advice = "keep them until you know which events were lost, then delete them"
        yield warn(f"{len(moved_away)} files were moved away: {names}", advice)
