"""The pipeline put together: channel, journal, gate, delivery and redelivery, with one start and one end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple, Protocol

import structlog

from forebay.backoff import Backoff
from forebay.pipeline.admission import Admitter
from forebay.pipeline.burial import Burials, BurialStore
from forebay.pipeline.channel import Channel, Limits
from forebay.pipeline.delivery import Delivery
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.findings import Findings
from forebay.pipeline.gate import Gate, Health
from forebay.pipeline.holds import Holds, HoldState
from forebay.pipeline.journal import Committer, Journal
from forebay.pipeline.packing import GroupLimits
from forebay.pipeline.redelivery import Redelivery
from forebay.pipeline.replay import Replay, RequestStore
from forebay.pipeline.sifting import Receiver
from forebay.pipeline.suspects import Pace, Suspects
from forebay.pipeline.trials import Trials
from forebay.settings import Settings
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.pipeline")

WRITE_OUT_S = 10.0
"""How long the shutdown waits for the spool to take what is still to be written, after delivery has ended."""


class PipelineSpool(Committer, BurialStore, RequestStore, Protocol):
    """All that the pipeline needs of a spool."""


class State(NamedTuple):
    """The pipeline at one moment.

    Attributes:
        sink_cause: why the sink is not well, empty while it is; `sink_error_type` is that in a word.
        sink_advice: what an operator can do about it.
        spool_failure: why the spool takes nothing, empty while it does.
        holds: the indices whose events wait.
    """

    channel_events: int
    channel_bytes: int
    stored_events: int
    stored_bytes: int
    pending_events: int
    sink_health: Health
    sink_cause: str
    spool_failure: str
    spool_full: bool
    sink_error_type: str = ""
    sink_advice: str = ""
    holds: tuple[HoldState, ...] = ()
    bulks_in_flight_max: int = 0


class Pipeline:
    """Everything between intake and sink.

    Attributes:
        admitter: the door for intake.
    """

    def __init__(self, spool: PipelineSpool, sink: Receiver, settings: Settings, counters: Counters) -> None:
        limits = Limits(
            settings.channel_events_max,
            settings.channel_bytes_max,
            settings.bulk_events_max,
            settings.bulk_bytes_max,
            settings.bulk_interval_s,
        )
        group_limits = GroupLimits(settings.bulk_events_max, settings.bulk_bytes_max)
        self._spool = spool
        self._channel = Channel(limits, asyncio.get_running_loop())
        backoff = Backoff(settings.retry_delay_s_min, settings.retry_delay_s_max)
        self._holds = Holds(backoff)
        self._journal = Journal(spool, self._channel, self._holds, group_limits, counters)
        self._gate = Gate(settings.bulk_workers, backoff)
        findings = Findings(self._gate, self._holds, Evidence(), counters)
        self._delivery = Delivery(self._channel, sink, self._journal, findings, counters)
        pace = Pace(settings.retry_delay_s_min, settings.retry_interval_s)
        self._suspects = Suspects(spool, self._journal, self._delivery, findings, pace)
        self._trials = Trials(spool, self._journal, self._delivery, findings, self._suspects)
        self._redelivery = Redelivery(
            spool, self._journal, self._channel, findings, self._suspects, settings.retry_interval_s
        )
        self._replay = Replay(spool, self._journal)
        self._burials = Burials(spool, self._journal, self._channel, findings.evidence, settings.bulk_timeout_s)
        self.admitter = Admitter(self._channel, self._journal, self._holds, settings.spool_bytes_max)
        self._connect()

    def _connect(self) -> None:
        """Let each part hear from the others what makes pending events go."""
        redelivery = self._redelivery
        self._journal.on_overflow = self._replay.on_replayed = redelivery.proceed
        self._gate.on_reopened = self._holds.on_lifted = self._replay.on_asked = redelivery.restart
        self._burials.on_done = redelivery.restart
        self._gate.on_rested = self._find_probe
        self._holds.on_held = self._put_back
        self._journal.on_left = self._retry_soon

    async def run(self) -> None:
        """Deliver and redeliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._delivery.run())
            tasks.create_task(self._redelivery.run())
            tasks.create_task(self._suspects.run())
            tasks.create_task(self._trials.run())
            tasks.create_task(self._replay.run())
            tasks.create_task(self._burials.run())

    async def stop(self, running: asyncio.Task[None], deliver_s: float) -> None:
        """End: admit nothing more, deliver what is in the channel for `deliver_s`, keep the rest in the spool."""
        self.admitter.closed = True
        # What was admitted before the door closed must be in the channel before it is emptied.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._journal.wait_written(), WRITE_OUT_S)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self._delivery.drain(deliver_s)
        try:
            await asyncio.wait_for(self._journal.wait_written(), WRITE_OUT_S)
        except TimeoutError:
            log.error("spool_not_written", cause=self._journal.failure)  # noqa: TRY400 - the cause says it all
        log.info("pipeline_stopped", pending_events=self._journal.ledger.stored_events)

    @property
    def state(self) -> State:
        """Return what there is to see from outside."""
        ledger, failed = self._journal.ledger, self._gate.failed
        return State(
            self._channel.events,
            self._channel.entry_bytes,
            ledger.stored_events,
            ledger.stored_bytes,
            ledger.pending_events,
            self._gate.health,
            f"{failed.error_type}: {failed.reason}" if failed else "",
            self._journal.failure,
            self.admitter.full,
            failed.error_type if failed else "",
            failed.advice if failed else "",
            self._holds.states,
            self._gate.in_flight_max,
        )

    def _put_back(self, index: str) -> None:
        groups = self._channel.withdraw(index)
        self._journal.put_back(groups)
        if groups:
            self._holds.note_fresh(index)

    def _retry_soon(self) -> None:
        # Of a sink that is not well it will be heard when it is back.
        if self._gate.health is Health.GOOD:
            self._redelivery.restart_soon()

    def _find_probe(self) -> None:
        # Without new events the channel may be empty, and nothing would find out that the sink is back.
        if not self._channel.events:
            self._redelivery.restart()
