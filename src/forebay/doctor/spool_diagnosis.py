"""What a spool's facts mean for the events in it, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from forebay.doctor.spool_look import INCIDENT_DAYS, Incident, Integrity, Look
from forebay.findings import Finding, Level

GIB = 1024**3
FULL_SHARE = 0.8
DISK_BYTES_LOW = GIB
DISK_BYTES_MIN = GIB // 4
SHOWN_MAX = 5
OLD_S = 600
"""How old a pending event is before it is worth a line of its own."""


class Drain(NamedTuple):
    """What moved between two looks: events that came, those that were settled, and those there were at the end."""

    seconds: float
    came: int
    settled: int
    left: int


def measure_drain(first: Look, second: Look, left_of_first: int) -> Drain:
    """Return what moved; `left_of_first` counts the events that were there at the first look and still are."""
    return Drain(
        second.at_s - first.at_s,
        second.totals.events - left_of_first,
        first.totals.events - left_of_first,
        second.totals.events,
    )


def judge_owner(what: str, owner: str | None, look: Look, *, is_workers: bool) -> Iterator[Finding]:
    """Say who has the spool open; one of a worker (`is_workers`) that nobody has open falls to another worker."""
    if owner is not None:
        yield Finding(Level.OK, what, f"open by {owner}")
    elif not is_workers:
        advice = "start the server if none runs; what is in it waits and is safe"
        yield Finding(Level.WARN, what, "no server has it open", advice)
    elif look.totals.events or look.totals.dead_letters:
        text = f"an orphan, with {look.totals.events} events and {look.totals.dead_letters} dead letters"
        advice = "the running server takes them over by itself; /health/ready says where it does not"
        yield Finding(Level.WARN, what, text, advice)
    else:
        yield Finding(Level.OK, what, "an orphan, and empty")


def judge_room(what: str, stored_bytes: int, bytes_max: int, file_bytes: int, free_bytes: int) -> Iterator[Finding]:
    """Say how much more the spools take: all of them together, and on the disk that their files are on."""
    text = f"{stored_bytes / GIB:.2f} GiB of {bytes_max / GIB:.2f} GiB (FOREBAY_SPOOL_BYTES_MAX)"
    why = "see why the sink takes no events; a larger FOREBAY_SPOOL_BYTES_MAX gains time"
    if stored_bytes >= bytes_max:
        yield Finding(Level.FAIL, what, f"{text}: full, clients get 503", why)
    elif stored_bytes >= bytes_max * FULL_SHARE:
        yield Finding(Level.WARN, what, f"{text}: nearly full", why)
    else:
        yield Finding(Level.OK, what, text)
    disk = f"{file_bytes / GIB:.2f} GiB in files, {free_bytes / GIB:.2f} GiB free on their disk"
    if free_bytes < DISK_BYTES_MIN:
        yield Finding(Level.FAIL, what, f"{disk}: the next commits may fail, and clients get 503", "free disk space")
    elif free_bytes < min(DISK_BYTES_LOW, bytes_max - stored_bytes):
        yield Finding(Level.WARN, what, disk, "free disk space")
    elif free_bytes < bytes_max - stored_bytes:
        advice = "set FOREBAY_SPOOL_BYTES_MAX to what the disk has, so that it is a limit and no accident"
        yield Finding(Level.WARN, what, f"{disk}, less than the spool may grow by", advice)
    else:
        yield Finding(Level.OK, what, disk)


def judge_pending(what: str, look: Look, drain: Drain | None, now_ms: int, settle_s: float) -> Iterator[Finding]:
    """Say how long events wait, and when they will be gone.

    `settle_s` is how long one takes to be settled where all is well: until its bulk is full or due, and answered.
    """
    events = look.totals.events
    if not events or look.oldest_at_ms is None:
        yield Finding(Level.OK, what, "no events wait")
        return
    age_s = max(0.0, (now_ms - look.oldest_at_ms) / 1000)
    text = f"{events} events are not settled, the oldest for {describe_seconds(age_s)}"
    is_old = age_s > max(OLD_S, 2 * settle_s)
    if drain is None:
        advice = "start the server, and see the log where it runs" if is_old else ""
        yield Finding(Level.WARN if is_old else Level.OK, what, text, advice)
        return
    if not drain.settled and age_s > settle_s:
        advice = "see `forebay doctor`'s lines about the sink, and /health/ready"
        yield Finding(Level.FAIL if is_old else Level.WARN, what, f"{text}; nothing moves", advice)
        return
    rates = f"{drain.settled / drain.seconds:.0f} settled a second, {drain.came / drain.seconds:.0f} come"
    if drain.settled > drain.came:
        gone_s = drain.left * drain.seconds / (drain.settled - drain.came)
        yield Finding(Level.OK, what, f"{text}; {rates}: gone in about {describe_seconds(gone_s)}")
    elif is_old:
        advice = "let OpenSearch take more: see its load, FOREBAY_BULK_WORKERS, FOREBAY_WORKERS"
        yield Finding(Level.WARN, what, f"{text}; {rates}: they do not become fewer", advice)
    else:
        yield Finding(Level.OK, what, f"{text}; {rates}")


def judge_refused(what: str, refused: dict[int, int]) -> Iterator[Finding]:
    """Say which pending events the sink has refused: those without evidence against them wait, for ever if need be."""
    if refused:
        shown = ", ".join(f"{events} with {status}" for status, events in list(refused.items())[:SHOWN_MAX])
        advice = (
            "they arrive, or become dead letters, once others of their index are taken; `forebay pending list` shows "
            "them, `forebay pending bury --refused` makes dead letters of them now"
        )
        text = f"{sum(refused.values())} of them were refused, and are tried again: {shown}"
        yield Finding(Level.WARN, what, text, advice)


def judge_dead(what: str, dead_types: dict[str, int]) -> Iterator[Finding]:
    """Say which dead letters wait for a person."""
    if not dead_types:
        yield Finding(Level.OK, what, "no dead letters")
        return
    shown = ", ".join(f"{count} {error_type}" for error_type, count in list(dead_types.items())[:SHOWN_MAX])
    more = f" and {len(dead_types) - SHOWN_MAX} more types" if len(dead_types) > SHOWN_MAX else ""
    advice = "`forebay dead show --type TYPE` says why; then `edit`, `replay` or `purge`"
    yield Finding(Level.WARN, what, f"{sum(dead_types.values())} dead letters: {shown}{more}", advice)


def judge_integrity(what: str, integrity: Integrity, seconds_max: float | None) -> Iterator[Finding]:
    """Say whether the file is whole."""
    if integrity.problems:
        shown = "; ".join(" ".join(problem.split()) for problem in integrity.problems[:SHOWN_MAX])
        advice = (
            "see the server's line first; then stop it, copy the file and its -wal away, and start it to save the rest"
        )
        yield Finding(Level.FAIL, what, f"damaged: {shown}", advice)
    elif not integrity.finished and seconds_max is not None:
        text = f"no damage found in {seconds_max:g} s, and not all of it was looked at"
        yield Finding(Level.OK, what, text, "`forebay doctor --full` looks to the end")
    else:
        yield Finding(Level.OK, what, "whole")
    if integrity.damaged_groups:
        shown = "; ".join(integrity.damaged_groups[:SHOWN_MAX])
        advice = "keep a copy of the file; they stay in it, and the others are delivered"
        yield Finding(Level.FAIL, what, f"{len(integrity.damaged_groups)} groups cannot be read: {shown}", advice)


def judge_incidents(what: str, incidents: list[Incident]) -> Iterator[Finding]:
    """Say what happened to the file itself lately."""
    for incident in incidents[:SHOWN_MAX]:
        at = datetime.fromtimestamp(incident.at_ms / 1000, UTC).isoformat(timespec="seconds")
        text = f"{at} {incident.kind}: {incident.detail}"
        yield Finding(Level.WARN, what, text, f"look into it; it is shown for {INCIDENT_DAYS} days")


def judge_damage(what: str, aside: list[Path], *, is_marked: bool, is_in_doubt: bool) -> Iterator[Finding]:
    """Say whether the file waits for its repair, or its log to be mended, and which files were moved aside."""
    if is_in_doubt:
        advice = "see the disk; a restart of the server writes the log once more, and takes events if that works"
        yield Finding(Level.FAIL, what, "a sync of its log failed", advice)
    if is_marked:
        advice = "restart the server: it moves the file aside and saves what can be read"
        yield Finding(Level.FAIL, what, "it was found to be damaged", advice)
    if aside:
        names = ", ".join(path.name for path in aside[:SHOWN_MAX])
        advice = "keep them until you know what was lost, then delete them"
        yield Finding(Level.WARN, what, f"{len(aside)} files were moved aside: {names}", advice)


def judge_absence(what: str, path: Path, owner: str | None) -> Finding:
    """Say what it means that there is no database."""
    text = f"there is no database at {path}"
    if owner is None:
        advice = "start the server if none runs, or run this in the folder that it runs in"
        return Finding(Level.WARN, what, text, advice)
    text += f", though {owner} has it open: it was removed while the server runs"
    advice = "do not end that server before everything is delivered; /health/ready says more"
    return Finding(Level.FAIL, what, text, advice)


def describe_seconds(seconds: float) -> str:
    """Return a span of time as a person says it."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
