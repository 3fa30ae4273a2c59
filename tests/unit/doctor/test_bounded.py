"""One check that hangs or fails hides none of the others."""

from __future__ import annotations

import threading

import pytest

from forebay.doctor.bounded import Check, run_checks
from forebay.errors import SpoolError
from forebay.findings import Finding, Level


def fine(what: str) -> Check:
    return Check(what, lambda: [Finding(Level.OK, what, "fine")], 30)


def test_findings_come_in_the_order_of_the_checks() -> None:
    done = threading.Event()

    def wait_for_the_last() -> list[Finding]:
        done.wait(30)
        return [Finding(Level.OK, "first", "fine")]

    def end() -> list[Finding]:
        done.set()
        return [Finding(Level.OK, "last", "fine"), Finding(Level.WARN, "last", "odd", "see to it")]

    found = run_checks([Check("first", wait_for_the_last, 30), Check("last", end, 30)])
    assert [finding.what for finding in found] == ["first", "last", "last"]


def test_check_that_hangs_is_said_and_hides_no_other() -> None:
    never = threading.Event()

    def hang() -> list[Finding]:
        never.wait()
        return []

    found = list(run_checks([fine("a"), Check("hanging", hang, 0.05), fine("b")]))
    never.set()

    assert [(finding.level, finding.what) for finding in found] == [
        (Level.OK, "a"),
        (Level.FAIL, "hanging"),
        (Level.OK, "b"),
    ]
    assert found[1].text == "no answer within 0.05 s"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SpoolError("the\nspool"), "the spool"),
        (ValueError("hunter2"), "could not be looked at: ValueError"),
        (TimeoutError("hunter2"), "could not be looked at: TimeoutError"),
    ],
)
def test_check_that_fails_is_said_without_what_it_may_quote(error: Exception, said: str) -> None:
    def fail() -> list[Finding]:
        raise error

    found = list(run_checks([Check("failing", fail, 30), fine("b")]))

    assert [(finding.what, finding.text) for finding in found] == [("failing", said), ("b", "fine")]
