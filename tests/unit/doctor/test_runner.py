"""One check that hangs or fails hides none of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.doctor import runner
from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, Level, fail, ok, warn
from forebay.doctor.opensearch.answers import AnswerUnknown, NotAsked
from forebay.doctor.runner import Check, run_checks
from forebay.errors import SpoolError
from unit.doctor.contexts import make_context


def check(subject: str, work: Callable[[], list[Finding]]) -> Check:
    return Check(subject, lambda _: work())


def fine(subject: str) -> Check:
    return check(subject, lambda: [ok("fine")])


def run(*checks: Check) -> list[Finding]:
    return list(run_checks(checks, make_context()))


def test_findings_come_in_the_order_of_the_checks_and_with_their_names() -> None:
    done = threading.Event()

    def wait_for_the_last() -> list[Finding]:
        done.wait(30)
        return [ok("fine")]

    def end() -> list[Finding]:
        done.set()
        return [ok("fine"), warn("odd", "see to it")._replace(subject="own")]

    found = run(check("first", wait_for_the_last), check("last", end))
    assert [finding.subject for finding in found] == ["first", "last", "own"]


def test_check_that_hangs_is_said_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def hang() -> list[Finding]:
        never.wait()
        return []

    monkeypatch.setattr(runner, "CHECK_S_MAX", 0.2)
    found = run(fine("a"), check("hanging", hang), fine("b"))
    never.set()

    assert [(finding.level, finding.subject) for finding in found] == [
        (Level.OK, "a"),
        (Level.FAIL, "hanging"),
        (Level.OK, "b"),
    ]
    assert found[1].text == "no answer within 0.2 s"


def test_long_check_has_no_limit_if_all_is_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECK_S_MAX", 0.0)
    goes_on = threading.Event()
    threading.Timer(0.1, goes_on.set).start()

    def wait(_: Context) -> list[Finding]:
        goes_on.wait(30)
        return [ok("all of it")]

    assert [finding.text for finding in run_checks([Check("a", wait, is_long=True)], make_context(is_full=True))] == [
        "all of it"
    ]


def test_check_of_a_spool_runs_for_each_and_for_the_one_of_the_settings_if_there_is_none_yet() -> None:
    named = Check("spool", lambda context: [ok(str(context.spool))], is_of_spool=True)

    two = list(run_checks([named], make_context(spools=(Path("/a/x.db"), Path("/a/x.2.db")))))
    none = list(run_checks([named], make_context()))

    assert [(finding.subject, finding.text) for finding in two] == [
        ("spool x.db", "/a/x.db"),
        ("spool x.2.db", "/a/x.2.db"),
    ]
    assert [finding.subject for finding in none] == ["spool sqlite3.db"]


NAMED = "correct the setting or the file that it names"
BY_HAND = "look at it by hand; the check has a fault"


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (SpoolError("the\nspool"), [fail("the spool", NAMED)]),
        (ValueError("hunter2"), [fail("could not be checked: ValueError", BY_HAND)]),
        (TimeoutError("hunter2"), [fail("could not be checked: TimeoutError", BY_HAND)]),
        (AnswerUnknown("status 403", "do this"), [warn("cannot be known: status 403", "do this")]),
        (NotAsked(), []),
    ],
)
def test_check_that_fails_is_said_without_anything_that_it_may_quote(error: Exception, found: list[Finding]) -> None:
    def raise_it() -> list[Finding]:
        raise error

    named = [finding._replace(subject="failing") for finding in found]
    assert run(check("failing", raise_it), fine("b")) == [*named, ok("fine")._replace(subject="b")]
