"""The pipeline put together: everything between intake and sink, with one start and one end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple, Protocol

import structlog

from forebay.backoff import Backoff
from forebay.pipeline.admitter import Admitter
from forebay.pipeline.channel import Channel, Limits
from forebay.pipeline.delivery import Delivery
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.gate import Gate, Health
from forebay.pipeline.group import GroupLimits
from forebay.pipeline.holds import Holds, HoldState
from forebay.pipeline.journal import Committer, Journal
from forebay.pipeline.ledger import GroupStore, Ledger
from forebay.pipeline.redelivery import Redelivery
from forebay.pipeline.requests import Requests, RequestStore
from forebay.pipeline.separate_bulks import Suspects, Trials
from forebay.pipeline.wake import Wake
from forebay.settings import Settings
from forebay.sinks.sifting import Receiver
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.pipeline")

WRITE_OUT_S = 10.0
"""How long the shutdown waits for the last writes to the spool, after delivery has ended."""


class PipelineSpool(Committer, GroupStore, RequestStore, Protocol):
    """All that the pipeline needs of a spool."""


class State(NamedTuple):
    """The pipeline at one moment.

    Attributes:
        sink_cause: why the sink is not well, empty while it is; `sink_error_type` is that in a word.
        sink_advice: a remedy for an operator.
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
        backoff = Backoff(settings.retry_delay_s_min, settings.retry_delay_s_max)
        loop = asyncio.get_running_loop()
        self._wake = wake = Wake(settings.retry_interval_s, loop)
        self._evidence = evidence = Evidence()
        self._ledger = ledger = Ledger(spool)
        self._channel = channel = Channel(_limits(settings), loop)
        self._holds = holds = Holds(backoff, wake, loop)
        self._gate = gate = Gate(settings.bulk_workers, backoff, wake, lambda: channel.events > 0, loop)
        group_limits = GroupLimits(settings.bulk_events_max, settings.bulk_bytes_max)
        self._journal = journal = Journal(spool, ledger, channel, holds, wake, group_limits, counters, loop)
        self._delivery = Delivery(channel, sink, journal, gate, holds, evidence, counters)
        deliver = self._delivery.deliver_alone
        delay_s, self._interval_s = settings.retry_delay_s_min, settings.retry_interval_s
        self._suspects = Suspects(ledger, journal, deliver, gate, holds, evidence, delay_s, self._interval_s)
        set_apart = self._suspects.set_apart
        self._trials = Trials(ledger, journal, deliver, gate, holds, set_apart)
        self._redelivery = Redelivery(ledger, journal, channel, holds, evidence, wake, set_apart, counters)
        self._requests = Requests(spool, ledger, journal, channel, evidence, wake, settings.bulk_timeout_s)
        self.admitter = Admitter(channel, journal, holds, settings.spool_bytes_max)

    async def run(self) -> None:
        """Deliver and redeliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._delivery.run())
            tasks.create_task(self._redelivery.run(self._interval_s))
            tasks.create_task(self._suspects.run())
            tasks.create_task(self._trials.run())
            tasks.create_task(self._requests.run())

    async def stop(self, running: asyncio.Task[None], deliver_s: float) -> None:
        """End: admit nothing more, deliver the channel for `deliver_s`, leave the rest in the spool."""
        self.admitter.closed = True
        # Events that were admitted before the door closed must be in the channel before it is emptied.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITE_OUT_S):
                await self._journal.wait_written()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self._delivery.drain(deliver_s)
        try:
            async with asyncio.timeout(WRITE_OUT_S):
                await self._journal.wait_written()
        except TimeoutError:
            log.error("spool_not_written", cause=self._journal.failure)  # noqa: TRY400 - the cause says it all
        log.info("pipeline_stopped", pending_events=self._ledger.stored_events)

    @property
    def state(self) -> State:
        """The pipeline as it is seen from outside."""
        failed = self._gate.failed
        return State(
            channel_events=self._channel.events,
            channel_bytes=self._channel.entry_bytes,
            stored_events=self._ledger.stored_events,
            stored_bytes=self._ledger.stored_bytes,
            pending_events=self._ledger.pending_events,
            sink_health=self._gate.health,
            sink_cause=f"{failed.error_type}: {failed.reason}" if failed else "",
            spool_failure=self._journal.failure,
            spool_full=self.admitter.full,
            sink_error_type=failed.error_type if failed else "",
            sink_advice=failed.advice if failed else "",
            holds=self._holds.states,
            bulks_in_flight_max=self._gate.in_flight_max,
        )


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.channel_events_max,
        settings.channel_bytes_max,
        settings.bulk_events_max,
        settings.bulk_bytes_max,
        settings.bulk_interval_s,
    )
