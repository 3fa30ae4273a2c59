"""The results of trials, and the files that keep them between runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "chaos" / "results"
FAULTS = RESULTS / "faults.json"
SOAK = RESULTS / "soak.json"


@dataclass
class Result:
    """The result of one trial of a row.

    Attributes:
        events: the number that was answered with 200.
        answers: requests by the status of their answer.
        unanswered_twice: documents of events without `log_id` whose sender got no answer and sent them again.
        recovery_s: from the end of the fault to everything in OpenSearch, None if that took too long.
        notes: other measurements.
        problem: the reason for a failure, empty if there was none.
    """

    row: str
    ack: str
    when: str = ""
    events: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    connection_errors: int = 0
    resent: int = 0
    lost: int = 0
    duplicated: int = 0
    unanswered_twice: int = 0
    dead: int = 0
    recovery_s: float | None = None
    notes: list[str] = field(default_factory=list)
    problem: str = ""


def read(path: Path) -> dict[str, Any]:
    """Return the results of earlier runs, empty if there are none."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return kept


def write(path: Path, kept: dict[str, Any]) -> None:
    """Keep measurements."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def keep_fault(result: Result, header: dict[str, Any]) -> None:
    """Keep the result of a row with its machine and versions; the results of other rows stay."""
    rows = read(FAULTS).get("rows", {}) | {f"{result.row} {result.ack}": {**asdict(result), "on": header}}
    write(FAULTS, {"rows": rows})
