"""Facts about a spool become lines with a level and a next step."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from forebay.doctor import spool
from forebay.doctor.finding import Finding, Level
from forebay.doctor.spool_file import Integrity, judge_integrity
from forebay.doctor.spool_pending import Drain, judge_pending
from forebay.doctor.spool_room import GIB, judge_room
from forebay.doctor.spool_state import Incident, SpoolState
from forebay.spool.records import Totals
from unit.doctor.contexts import make_context

NOW_MS = 10_000_000_000
SETTLE_S = 40


def make_state(events: int = 10, dead_letters: int = 0, age_s: float = 5) -> SpoolState:
    oldest = int(NOW_MS - age_s * 1000) if events else None
    return SpoolState(0, Totals(1, events, 100, dead_letters, 0), oldest, oldest, 1, {}, {}, [])


def judged(found: Iterable[Finding]) -> list[tuple[Level, str]]:
    found = list(found)
    assert all(finding.advice for finding in found if finding.level is not Level.OK)
    return [(finding.level, finding.text) for finding in found]


@pytest.mark.parametrize(
    ("owner", "state", "is_workers", "level", "said"),
    [
        ("pid 7", make_state(), False, Level.OK, "open by pid 7"),
        ("pid 7", make_state(), True, Level.OK, "open by pid 7"),
        (None, make_state(), False, Level.WARN, "no server has it open"),
        (None, make_state(), True, Level.WARN, "an orphan, with 10 events"),
        (None, make_state(0, 3), True, Level.WARN, "an orphan, with 0 events and 3 dead letters"),
        (None, make_state(0), True, Level.OK, "an orphan, and empty"),
    ],
)
def test_owner(owner: str | None, state: SpoolState, is_workers: bool, level: Level, said: str) -> None:  # noqa: FBT001
    ((found, text),) = judged([spool.judge_owner(owner, state, is_workers=is_workers)])

    assert found is level
    assert said in text


@pytest.mark.parametrize(
    ("stored", "free", "levels"),
    [
        (0, 20 * GIB, [Level.OK, Level.OK]),
        (8 * GIB - 1, 2 * GIB + 1, [Level.OK, Level.OK]),
        (8 * GIB, 2 * GIB, [Level.WARN, Level.OK]),
        (10 * GIB, 2 * GIB, [Level.FAIL, Level.OK]),
        (0, 9 * GIB, [Level.OK, Level.WARN]),
        (0, GIB - 1, [Level.OK, Level.WARN]),
        (0, GIB // 4 - 1, [Level.OK, Level.FAIL]),
    ],
)
def test_room_is_bounded_by_the_limit_and_by_the_disk(stored: int, free: int, levels: list[Level]) -> None:
    assert [level for level, _ in judged(judge_room(stored, 10 * GIB, 1, free))] == levels


@pytest.mark.parametrize(
    ("state", "drain", "level", "said"),
    [
        (make_state(0), None, Level.OK, "no events wait"),
        (make_state(), None, Level.OK, "10 events are not settled, the oldest for 5 s"),
        (make_state(age_s=601), None, Level.WARN, "the oldest for 10 min"),
        # A bulk is not due yet.
        (make_state(age_s=39), Drain(3, 5, 0, 15), Level.OK, "0 settled a second, 2 come"),
        (make_state(age_s=41), Drain(3, 5, 0, 15), Level.WARN, "nothing moves"),
        (make_state(age_s=7 * 3600), Drain(3, 5, 0, 15), Level.FAIL, "the oldest for 7 h; nothing moves"),
        (
            make_state(age_s=700),
            Drain(2, 100, 300, 60_000),
            Level.OK,
            "150 settled a second, 50 come: gone in about 10 min",
        ),
        (make_state(age_s=700), Drain(2, 300, 300, 9), Level.WARN, "they do not become fewer"),
        (make_state(age_s=30), Drain(2, 300, 300, 9), Level.OK, "150 settled a second, 150 come"),
        (make_state(age_s=-60), None, Level.OK, "the oldest for 0 s"),
    ],
)
def test_pending_events(state: SpoolState, drain: Drain | None, level: Level, said: str) -> None:
    ((found, text),) = judged([judge_pending(state, drain, NOW_MS, SETTLE_S)])

    assert found is level
    assert said in text


def test_pending_events_that_were_refused_are_told_by_status() -> None:
    assert judged(spool.judge_refused({})) == []
    assert judged(spool.judge_refused({400: 7, 403: 1})) == [
        (Level.WARN, "8 of them were refused, and are tried again: 7 with 400, 1 with 403")
    ]


@pytest.mark.parametrize(
    ("types", "level", "said"),
    [
        ({}, Level.OK, "no dead letters"),
        ({"b": 5, "a": 2}, Level.WARN, "7 dead letters: 5 b, 2 a"),
        (
            {str(number): 1 for number in range(7)},
            Level.WARN,
            "7 dead letters: 1 0, 1 1, 1 2, 1 3, 1 4 and 2 more types",
        ),
    ],
)
def test_dead_letters_by_type(types: dict[str, int], level: Level, said: str) -> None:
    assert judged([spool.judge_dead(types)]) == [(level, said)]


@pytest.mark.parametrize(
    ("integrity", "levels", "said"),
    [
        (Integrity([], [], finished=True), [Level.OK], "whole"),
        (Integrity([], [], finished=False), [Level.OK], "no damage found in 10 s, and not all of it"),
        (Integrity(["a\nb"], [], finished=True), [Level.FAIL], "damaged: a b"),
        (Integrity([], ["group 2: x"], finished=True), [Level.OK, Level.FAIL], "1 groups cannot be read: group 2: x"),
    ],
)
def test_integrity(integrity: Integrity, levels: list[Level], said: str) -> None:
    found = judged(judge_integrity(integrity, 10))

    assert [level for level, _ in found] == levels
    assert said in found[-1][1]


def test_what_happened_to_the_file_is_told() -> None:
    assert (
        judged(spool.judge_incidents([])) == judged(spool.judge_damage([], is_damaged=False, is_in_doubt=False)) == []
    )
    assert judged(spool.judge_incidents([Incident(0, "repaired", "3 lost")])) == [
        (Level.WARN, "1970-01-01T00:00:00+00:00 repaired: 3 lost")
    ]
    assert judged(spool.judge_damage([Path("/a/b.moved-1")], is_damaged=True, is_in_doubt=True)) == [
        (Level.FAIL, "a sync of its log failed"),
        (Level.FAIL, "it was found to be damaged"),
        (Level.WARN, "1 files were moved away: b.moved-1"),
    ]


def test_files_that_were_moved_away_and_a_failed_sync_and_damage_are_found(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    moved_away = [
        path.with_name(f"{path.name}.moved-{day}{side}") for day in ("01", "02") for side in ("", "-wal", "-shm")
    ]
    for file in (*moved_away, path.with_name("other.db.moved-01")):
        file.touch()
    moved = (Level.WARN, "2 files were moved away: spool.db.moved-01, spool.db.moved-02")
    assert judged(spool.check(make_context(spool=path)))[1:] == [moved]

    for end in (".damaged", ".doubt"):
        path.with_name(f"{path.name}{end}").touch()
    assert judged(spool.check(make_context(spool=path)))[1:] == [
        (Level.FAIL, "a sync of its log failed"),
        (Level.FAIL, "it was found to be damaged"),
        moved,
    ]
