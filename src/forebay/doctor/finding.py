"""A line of the doctor: a judgement, and the next step."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SHOWN_MAX = 5


class Level(enum.StrEnum):
    """The gravity of a finding."""

    OK = "ok"
    WARN = "warn"  # events are safe, and somebody should see to it
    FAIL = "fail"  # events are refused or not delivered, or will soon be


class Finding(NamedTuple):
    """One judgement of a check; no part of it holds a secret.

    Attributes:
        level: its gravity.
        text: the thing itself, in one line.
        advice: the next step, empty if none is needed.
        subject: the thing that was checked, as in `spool sqlite3.db`; by default that of the check.
    """

    level: Level
    text: str
    advice: str = ""
    subject: str = ""


def ok(text: str, advice: str = "") -> Finding:
    """Return a finding that all is well."""
    return Finding(Level.OK, text, advice)


def warn(text: str, advice: str) -> Finding:
    """Return a finding that somebody should see to."""
    return Finding(Level.WARN, text, advice)


def fail(text: str, advice: str) -> Finding:
    """Return a finding that costs events, or will soon."""
    return Finding(Level.FAIL, text, advice)


def is_well(findings: Iterable[Finding]) -> bool:
    """Return whether none of the findings is a failure."""
    return all(finding.level is not Level.FAIL for finding in findings)


def enumerate_some(texts: Sequence[str], *, more: str = "more") -> str:
    """Return the first few texts in one line, and the number of the others, which are called `more`."""
    rest = len(texts) - SHOWN_MAX
    return ", ".join(texts[:SHOWN_MAX]) + (f" and {rest} {more}" if rest > 0 else "")
