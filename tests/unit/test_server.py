"""The delivery of one spool's events, and what looks after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay import server
from forebay.server import Deliverer
from forebay.settings import Settings
from forebay.sinks.selection import make_sink
from forebay.spool.spool import Spool
from forebay.telemetry.counters import Counters
from unit.pipeline.fakes import capture_log, until


async def test_a_task_that_ends_by_a_fault_of_our_own_is_told_and_events_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise LookupError("forgotten")

    lines = capture_log(monkeypatch, server)
    # It would end the process that runs the tests.
    monkeypatch.setattr(server, "end_within", lambda _: None)
    settings = Settings(DATABASE_URL=f"sqlite://{path}", _env_file=None)
    deliverer = Deliverer(settings, Spool(path), make_sink(settings), Counters())
    failed: list[str] = []
    deliverer.start(lambda: failed.append("the delivery"), fail())
    try:
        await until(lambda: bool(lines))
        assert failed == []
        assert (lines[0]["event"], repr(lines[0]["exc_info"])) == ("task_failed", "LookupError('forgotten')")
    finally:
        assert await deliverer.stop() == 0
