"""The doctor reads the denial list, and sees who else may."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forebay.admin.metrics import render
from forebay.denials import changing
from forebay.denials.entries import Kind
from forebay.doctor import denials
from forebay.doctor.denials import judge_entries, judge_rights, judge_server
from forebay.doctor.finding import Finding, Level
from forebay.telemetry.counters import Counters
from unit.admin.test_metrics import alone
from unit.denials.making import AT, denial
from unit.doctor.contexts import NOW, make_context, make_settings


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "spool.db"
    path.touch()
    return path


def check(database: Path) -> list[Finding]:
    return list(denials.check(make_context(make_settings(DATABASE_URL=f"sqlite://{database}"))))


def test_a_list_is_counted_by_kind(database: Path) -> None:
    assert check(database) == [(Level.OK, "nobody is shut out", "", "")]
    path = database.with_name("spool.db.denials")
    changing.add(database, path, [denial(Kind.SUB, "a"), denial(Kind.SUB, "b"), denial(Kind.DEVICE, "c")])
    assert check(database) == [(Level.OK, "3 entries (device 1, sub 2)", "", "")]


def test_a_damaged_list_is_a_failure_that_names_its_line(database: Path) -> None:
    database.with_name("spool.db.denials").write_bytes(b"damaged")
    (finding,) = check(database)
    assert finding.level is Level.FAIL
    assert "line 1" in finding.text
    assert "none starts" in finding.advice


def test_entries_that_are_over_shut_nobody_out() -> None:
    assert judge_entries([denial(Kind.SUB, "a", NOW)], NOW).text == "nobody is shut out"


def test_a_list_that_is_nearly_full_is_a_warning() -> None:
    finding = judge_entries([denial(Kind.SUB, "a")] * 90_000, AT)
    assert finding.level is Level.WARN
    assert "90000 entries (sub 90000) of 100000" in finding.text


def test_a_list_that_others_may_read_is_a_warning(database: Path) -> None:
    path = database.with_name("spool.db.denials")
    path.touch(0o600)
    path.chmod(0o640)
    _, finding = check(database)
    assert (finding.level, finding.advice) == (Level.WARN, "chmod 600 it")


def test_a_list_of_another_owner_than_the_spools_is_a_failure(database: Path) -> None:
    path = database.with_name("spool.db.denials")
    path.touch(0o600)
    own = list(path.stat())
    own[4] += 1
    (finding,) = judge_rights(os.stat_result(own), database.stat(), path)
    assert finding.level is Level.FAIL
    assert finding.advice == f"chown {database.stat().st_uid} it"


def test_a_list_that_is_gone_while_a_server_has_it_in_force_is_a_failure() -> None:
    metrics = render(alone(Counters(denials=14)))
    (finding,) = judge_server(metrics, [])
    assert (finding.level, "14 entries in force" in finding.text) == (Level.FAIL, True)
    assert list(judge_server(metrics, [denial(Kind.SUB, "a")])) == []
    assert list(judge_server(render(alone(Counters())), [])) == []
    assert list(judge_server(b"", [])) == []
