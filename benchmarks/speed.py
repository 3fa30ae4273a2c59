"""Lets the candidates take turns under the same load, and compares them round by round."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import load
from benchmarks.reach.goals import Finding, Goal

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.candidates import Candidate

Run = dict[str, Any]

USERS = 1_000
SINGLE, BATCH, LARGE_BATCH = 1, 100, 1_000
CONNECTIONS = {SINGLE: 256, BATCH: 16, LARGE_BATCH: 8}
LARGE_BATCHES_OF = ("disk", "rust")
"""Those whose large batches are worth a turn: the one that has a goal, and the fastest to compare it with."""


class Timing(NamedTuple):
    """The length of a measurement."""

    rounds: int
    seconds: int
    warm_up: int


class Turn(NamedTuple):
    """A candidate, and the number of events in each request to it."""

    candidate: Candidate
    events: int


class Comparison(NamedTuple):
    """A goal, and the two turns of each round whose ratio it is about."""

    goal: Goal
    candidate: str
    events: int
    to: str
    to_events: int


def _times(title: str, least: float, aim: float) -> Goal:
    return Goal(title, "times", least, aim)


COMPARISONS = (
    Comparison(_times("single events, against Forebay before", 1.75, 2.3), "disk", SINGLE, "before", SINGLE),
    Comparison(_times("single events, against bare httptools", 0.33, 0.45), "disk", SINGLE, "bare", SINGLE),
    Comparison(_times("single events, against the Rust collector", 1.2, 1.8), "disk", SINGLE, "rust", SINGLE),
    Comparison(_times("single events, `ack=memory` against `ack=disk`", 1.1, 1.3), "memory", SINGLE, "disk", SINGLE),
    Comparison(_times("batches of 100, against Forebay before", 2.0, 3.5), "disk", BATCH, "before", BATCH),
    Comparison(_times("events in batches of 100, against bare requests", 2.0, 3.5), "disk", BATCH, "bare", SINGLE),
    Comparison(_times("batches of 1,000 against batches of 100", 1.1, 1.3), "disk", LARGE_BATCH, "disk", BATCH),
)


def turns(candidates: list[Candidate]) -> list[Turn]:
    """Return the turns of a round."""
    planned = [Turn(one, SINGLE) for one in candidates]
    planned += [Turn(one, BATCH) for one in candidates if one.takes_batches]
    return planned + [Turn(one, LARGE_BATCH) for one in candidates if one.name in LARGE_BATCHES_OF]


def measure(candidates: list[Candidate], timing: Timing, work: Path) -> list[Run]:
    """Take every turn in every round."""
    planned = turns(candidates)
    runs = []
    for number in range(timing.rounds):
        # The order moves on, so that a round does not always begin and end with the same.
        for candidate, events in planned[number:] + planned[:number]:
            form = candidate.form
            wanted = load.Load(
                form.script(events), form.path(events), events, CONNECTIONS[events], timing.seconds, timing.warm_up
            )
            run = {"round": number + 1, **load.measure(candidate, wanted, work, USERS)}
            print(f"round {number + 1}: {json.dumps(run)}", flush=True)
            runs.append(run)
    return runs


def per_cpu_s(run: Run) -> float:
    """Return the events that a server took for each second of its processor time."""
    return float(run["requests_per_cpu_s"] * run["events_per_request"])


def of(runs: list[Run], candidate: str, events: int) -> list[Run]:
    """Pick the turns of a candidate, in the order of rounds."""
    return [run for run in runs if (run["candidate"], run["events_per_request"]) == (candidate, events)]


def findings(runs: list[Run]) -> list[Finding]:
    """Compare turns of the same round with each other, for every goal whose turns were taken."""
    found = []
    for goal, candidate, events, to, to_events in COMPARISONS:
        pairs = zip(of(runs, candidate, events), of(runs, to, to_events), strict=False)
        if values := [per_cpu_s(mine) / per_cpu_s(other) for mine, other in pairs]:
            found.append(Finding(goal, values))
    return found
