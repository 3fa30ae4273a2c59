"""Checks that run side by side, each within a time of its own, so that one that hangs hides no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import NamedTuple, TypeVar

from forebay.errors import ForebayError
from forebay.findings import Finding, Level

T = TypeVar("T")


class Check(NamedTuple):
    """Something to look at.

    Attributes:
        what: its name, for the finding where it fails itself.
        look: looks, and returns what it found.
        seconds_max: how long that may take, or None for however long it takes.
    """

    what: str
    look: Callable[[], Sequence[Finding]]
    seconds_max: float | None


def run_checks(checks: Sequence[Check]) -> Iterator[Finding]:
    """Run checks and yield what they find, in their order, each as soon as it and those before it are done."""
    started_at = time.monotonic()
    running = [(check, start(check.look)) for check in checks]
    for check, future in running:
        left_s = None if check.seconds_max is None else max(0.0, started_at + check.seconds_max - time.monotonic())
        wait([future], left_s)
        if not future.done():
            text = f"no answer within {check.seconds_max:g} s"
            yield Finding(
                Level.FAIL, check.what, text, "see what it waits for: a disk, a network file system, a network"
            )
            continue
        yield from _take(check, future)


def _take(check: Check, future: Future[Sequence[Finding]]) -> Sequence[Finding]:
    try:
        return future.result()
    except ForebayError as error:
        return [Finding(Level.FAIL, check.what, " ".join(str(error).split()))]
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are still worth knowing
        # Its text may quote anything.
        return [Finding(Level.FAIL, check.what, f"could not be looked at: {type(error).__name__}")]


def start(work: Callable[[], T]) -> Future[T]:
    """Begin with some work in a thread of its own, without which the process can end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
