"""Runs checks side by side, each within a time of its own, so that one that hangs hides no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, warn
from forebay.doctor.opensearch.answers import AnswerUnknown, NotAsked
from forebay.errors import ForebayError

T = TypeVar("T")

CHECK_S_MAX = 30.0


class Check(NamedTuple):
    """One check, and the name of its subject.

    Attributes:
        subject: the name of the thing to check.
        check: yields the findings; those without a name get this one.
        is_of_spool: whether it runs for each spool, or for the one of the settings if there is none yet.
        is_long: whether it has no time limit with `Context.is_full`.
    """

    subject: str
    check: Callable[[Context], Iterable[Finding]]
    is_of_spool: bool = False
    is_long: bool = False


class _Run(NamedTuple):
    subject: str
    findings: Future[list[Finding]]
    seconds_max: float | None


def run_checks(checks: Sequence[Check], context: Context) -> Iterator[Finding]:
    """Run checks and yield their findings in their order, each as soon as it and those before it are done."""
    started_at = time.monotonic()
    runs = [run for check in checks for run in _start_check(check, context)]
    for run in runs:
        left_s = None if run.seconds_max is None else max(0.0, started_at + run.seconds_max - time.monotonic())
        for finding in _collect(run, left_s):
            yield finding if finding.subject else finding._replace(subject=run.subject)


def start(work: Callable[[], T]) -> Future[T]:
    """Start some work in a thread of its own, which does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - the caller of `result` gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _start_check(check: Check, context: Context) -> Iterator[_Run]:
    seconds_max = None if check.is_long and context.is_full else CHECK_S_MAX
    if not check.is_of_spool:
        yield _Run(check.subject, start(partial(_run, check, context)), seconds_max)
        return
    for path in context.spools or (context.settings.database_url,):
        work = partial(_run, check, replace(context, spool=path))
        yield _Run(f"{check.subject} {path.name}", start(work), seconds_max)


def _run(check: Check, context: Context) -> list[Finding]:
    try:
        return list(check.check(context))
    except NotAsked:
        return []
    except AnswerUnknown as error:
        return [warn(f"cannot be known: {error}", error.advice)]
    except ForebayError as error:
        return [fail(" ".join(str(error).split()), "correct the setting or the file that it names")]
    except Exception as error:  # noqa: BLE001 - the other checks are still worth running
        # Its text may quote anything.
        return [fail(f"could not be checked: {type(error).__name__}", "look at it by hand; the check has a fault")]


def _collect(run: _Run, seconds_max: float | None) -> list[Finding]:
    wait([run.findings], seconds_max)
    if run.findings.done():
        return run.findings.result()
    return [
        fail(
            f"no answer within {run.seconds_max:g} s",
            "find the cause of the wait: a disk, a network file system, a network",
        )
    ]
