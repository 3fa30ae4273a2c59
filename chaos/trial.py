"""One trial of a row: start everything, send, let the fault strike, wait for the recovery, compare."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from chaos.comparison import Comparison, Unexplained, compare, explain_unwritten
from chaos.load import Load, Sender
from chaos.results import Result
from chaos.rows import Backend, Loss, Row
from chaos.scale import Scale
from chaos.stage import DRAINED_TIMES, POLL_S, Stage
from testbed.servers.faulty_proxy import FaultyProxy
from testbed.servers.opensearch import OpenSearchServer

TOKEN_S = 90 * 86_400
"""Tokens outlive the clocks that are put forward."""

QUIET_S = 3.0
"""The time with nothing to deliver after which missing events count as lost."""

START_S_MAX = 200.0
FAULT_S_MAX = 240.0
RECOVERY_S_MAX = 120.0
"""A start, a fault or a recovery that takes longer has failed."""

SHOWN_MAX = 3
HOLDERS = {Loss.DAMAGED: "the damaged file", Loss.DELIVERED: "OpenSearch"}
"""The holder of the events that may be lost with it."""


class Backends(NamedTuple):
    """The OpenSearch servers of a run.

    Attributes:
        shared_url: returns the address of the one that no row stops.
        own: returns the one that rows may stop or change, started.
    """

    shared_url: Callable[[], str]
    own: Callable[[], OpenSearchServer]


async def try_row(row: Row, ack: str, scale: Scale, backends: Backends, folder: Path) -> Result:
    """Try a row once, within a limited time; return its result, with every failure as its `problem`."""
    result = Result(row.name, ack, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    with contextlib.ExitStack() as stack:
        stage = await asyncio.to_thread(_set_stage, stack, row, ack, scale, backends, folder)
        try:
            await _play(stage, row, ack, result)
        except Exception as error:  # noqa: BLE001 - one row that fails must not end the run of the others
            result.problem = result.problem or _describe(error)
        _count(stage, result)
        await stage.index.remove()
    return result


def _set_stage(
    stack: contextlib.ExitStack, row: Row, ack: str, scale: Scale, backends: Backends, folder: Path
) -> Stage:
    own = backends.own() if row.backend is Backend.OWN else None
    opensearch_url = own.url if own else backends.shared_url()
    proxy = stack.enter_context(FaultyProxy(opensearch_url)) if row.backend is Backend.PROXY else None
    environment = f"{row.name}-{ack}-{time.time_ns() % 1_000_000}"
    settings = {
        **scale.settings,
        **row.settings,
        **stack.enter_context(row.prepare(folder, scale)),
        "OPEN_SEARCH_DNS": proxy.url if proxy else opensearch_url,
        "SERVER_ENVIRONMENT": environment,
        "FOREBAY_METRICS_OPEN": "true",
        "FOREBAY_LOG_FORMAT": "json",
    }
    server = stack.enter_context(row.serve(folder, settings))
    sender = Sender(server.url, server.token(lifetime_s=TOKEN_S), ack, row.doomed, row.find_month)
    return Stage(
        environment=environment,
        scale=scale,
        server=server,
        opensearch_url=opensearch_url,
        own=own,
        proxy=proxy,
        load=Load(sender, row.make, scale.rate),
    )


async def _play(stage: Stage, row: Row, ack: str, result: Result) -> None:
    scale, load = stage.scale, stage.load
    async with asyncio.timeout(START_S_MAX):
        await stage.start_server()
        await row.set_up(stage)
    # In one group, so that a client with a wrong answer ends the trial at once.
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(load.run())
        async with asyncio.timeout(FAULT_S_MAX):
            await load.wait_accepted(scale.events_before)
            await row.fault(stage)
        ended_at = time.monotonic()
        load.stop()
        async with asyncio.timeout(RECOVERY_S_MAX):
            await sending
    found, drained_at = await _wait_recovered(stage, ended_at, ends_by_itself=row.loss is Loss.DAMAGED)
    result.recovery_s = None if drained_at is None else round(max(0.0, drained_at - ended_at), 2)
    _judge(stage, row, ack, found, result)


async def _wait_recovered(stage: Stage, ended_at: float, *, ends_by_itself: bool) -> tuple[Comparison, float | None]:
    """Wait until nothing is left to deliver and nothing is missing; return the comparison, and the time of recovery."""
    drained_at, times = None, 0
    while time.monotonic() < ended_at + RECOVERY_S_MAX:
        if ends_by_itself:
            await stage.revive()
        if not (await stage.metrics()).is_drained:
            drained_at, times = None, 0
        else:
            drained_at = drained_at or time.monotonic()
            times += 1
            if times >= DRAINED_TIMES:
                found = await _read_back(stage)
                if not found.lost or time.monotonic() - drained_at > QUIET_S:
                    return found, drained_at
        await asyncio.sleep(POLL_S)
    return await _read_back(stage), None


async def _read_back(stage: Stage) -> Comparison:
    await stage.index.count()  # makes written documents visible
    return await compare(stage.load.client.taken, stage.index, stage.server)


def _judge(stage: Stage, row: Row, ack: str, found: Comparison, result: Result) -> None:
    taken = stage.load.client.taken
    if tolerated := {log_id for log_id in found.duplicated if row.tolerated(log_id)}:
        repeated = sum(row.tolerated(log_id) for log_id in taken)
        stage.notes.append(f"{len(tolerated)} of {repeated} events with neither are there twice, as they may be")
        found.duplicated -= tolerated
    result.lost, result.duplicated = len(found.lost), len(found.duplicated)
    result.unanswered_twice, result.dead = found.unanswered, len(found.dead)
    doomed = {log_id for log_id, event in taken.items() if event.doomed}
    problems = [_judge_loss(stage, row.may_lose(ack), found)] if result.recovery_s is not None else []
    if found.duplicated:
        problems.append(f"duplicated: {_show(found.duplicated)}")
    if found.dead != doomed:
        problems.append(f"{len(found.dead - doomed)} dead letters too many, {len(doomed - found.dead)} too few")
    if result.recovery_s is None:
        problems.append(f"not recovered within {RECOVERY_S_MAX:.0f} s, {result.lost:,} events not there")
    result.problem = "; ".join(filter(None, problems))


def _judge_loss(stage: Stage, loss: Loss, found: Comparison) -> str:
    """Return the fault in a loss, and note a loss that is allowed."""
    if not found.lost:
        return ""
    taken = stage.load.client.taken
    unexplained = ""
    if loss is Loss.UNWRITTEN:
        settings = stage.server.settings
        age_s_max = float(settings["FOREBAY_BULK_INTERVAL_S"]) + float(settings["FOREBAY_BULK_TIMEOUT_S"])
        try:
            stage.notes.append(explain_unwritten(found.lost, taken, stage.kills, age_s_max))
        except Unexplained as error:
            unexplained = f": {error}"
        else:
            return ""
    elif loss in HOLDERS and all(taken[log_id].answered_at < stage.damaged_at for log_id in found.lost):
        stage.notes.append(f"{len(found.lost):,} of {stage.at_risk:,} events that only {HOLDERS[loss]} held were lost")
        return "" if len(found.lost) <= stage.at_risk else f"lost more than {HOLDERS[loss]} held"
    return f"lost: {_show(found.lost)}{unexplained}{''.join(f'; {line}' for line in found.spoilt[:SHOWN_MAX])}"


def _count(stage: Stage, result: Result) -> None:
    client = stage.load.client
    result.events = len(client.taken)
    result.answers = {str(status): count for status, count in sorted(client.answers.items())}
    result.connection_errors, result.resent = client.connection_errors, client.resent
    result.notes = stage.notes


def _show(log_ids: set[str]) -> str:
    shown = ", ".join(sorted(log_ids)[:SHOWN_MAX])
    return f"{len(log_ids)} ({shown}{', …' if len(log_ids) > SHOWN_MAX else ''})"


def _describe(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_describe(each) for each in error.exceptions)
    if isinstance(error, TimeoutError):
        return f"did not end in time: {_find_wait(error)}"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__}: {error} ({', '.join(f'{Path(at.filename).name}:{at.lineno}' for at in last)})"


def _find_wait(error: TimeoutError) -> str:
    """Return the calls, from the outermost, that had not ended when the time was up."""
    cancelled = error.__cause__ or error
    calls = [at for at in traceback.extract_tb(cancelled.__traceback__) if Path(at.filename).parent.name != "asyncio"]
    return " > ".join(f"{at.name} ({Path(at.filename).name}:{at.lineno})" for at in calls)
