"""What a look at the whole finds: how it is, in one line, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # events are safe, and somebody should see to it
    FAIL = "fail"  # events are refused or not delivered, or will soon be


class Finding(NamedTuple):
    """One thing that was looked at; no part of it holds a secret.

    Attributes:
        level: how bad it is.
        what: what was looked at, as in `spool sqlite3.db`.
        text: what was found.
        advice: what to do, empty where there is nothing to do.
    """

    level: Level
    what: str
    text: str
    advice: str = ""


def is_well(findings: Iterable[Finding]) -> bool:
    """Return whether nothing among it has failed."""
    return all(finding.level is not Level.FAIL for finding in findings)
