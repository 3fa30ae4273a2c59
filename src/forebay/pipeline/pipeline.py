"""The pipeline put together: channel, journal, gate, delivery and redelivery, with one start and one end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple, Protocol

import structlog

from forebay.pipeline.admission import Admitter
from forebay.pipeline.channel import Channel, Limits
from forebay.pipeline.delivery import Delivery, Sink
from forebay.pipeline.gate import Gate, Health
from forebay.pipeline.journal import Committer, Journal
from forebay.pipeline.packing import GroupLimits
from forebay.pipeline.redelivery import Redelivery, Store
from forebay.settings import Settings
from forebay.spool.adoption import Portion
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.pipeline")

WRITE_OUT_S = 10.0
"""How long the shutdown waits for the spool to take what is still to be written, after delivery has ended."""


class PipelineSpool(Committer, Store, Protocol):
    """All that the pipeline needs of a spool."""

    async def adopt(self, portion: Portion, first_id: int) -> None:
        """Keep rows of another spool."""


class State(NamedTuple):
    """The pipeline at one moment; `cause` and `failure` say why the sink or the spool is not well, or are empty."""

    channel_events: int
    channel_bytes: int
    stored_events: int
    stored_bytes: int
    pending_events: int
    sink_health: Health
    sink_cause: str
    spool_failure: str
    spool_full: bool


class Pipeline:
    """Everything between intake and sink.

    Attributes:
        admitter: the door for intake.
    """

    def __init__(self, spool: PipelineSpool, sink: Sink, settings: Settings, counters: Counters) -> None:
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
        self._journal = Journal(spool, self._channel, group_limits, counters)
        self._gate = Gate(settings.bulk_workers, settings.retry_delay_s_min, settings.retry_delay_s_max)
        self._delivery = Delivery(self._channel, sink, self._journal, self._gate, counters)
        self._redelivery = Redelivery(spool, self._journal, self._channel, settings.retry_interval_s, group_limits)
        self.admitter = Admitter(self._channel, self._journal, settings.spool_bytes_max)
        self._journal.on_overflow = self._redelivery.proceed
        self._gate.on_reopened = self._redelivery.restart
        self._delivery.on_retry = self._redelivery.restart_soon

    async def run(self) -> None:
        """Deliver and redeliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._delivery.run())
            tasks.create_task(self._redelivery.run())

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

    async def adopt(self, portion: Portion) -> None:
        """Take over rows of a spool that has lost its owner; they are pending here from then on.

        Raises:
            SpoolUnavailable: nothing was kept.
        """
        await self._spool.adopt(portion, self._journal.new_ids(len(portion.groups)))
        self._journal.ledger.store(portion.events, portion.stored_bytes)
        self._redelivery.proceed()

    @property
    def state(self) -> State:
        """Return what there is to see from outside."""
        ledger = self._journal.ledger
        return State(
            self._channel.events,
            self._channel.entry_bytes,
            ledger.stored_events,
            ledger.stored_bytes,
            ledger.pending_events,
            self._gate.health,
            self._gate.cause,
            self._journal.failure,
            self.admitter.full,
        )
