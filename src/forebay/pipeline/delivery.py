"""Delivery: takes bulks from the channel, hands them to the sink, and settles every outcome.

Every event taken is settled on every path: an answer, an error of the sink's, a bug in it, a cancellation. What is not
known to be settled counts as retry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from forebay.clock import now_ms
from forebay.model import DeadLetter, Outcome, Verdict
from forebay.pipeline.channel import Bulk, Channel
from forebay.pipeline.findings import Findings
from forebay.pipeline.gate import Health, Ticket
from forebay.pipeline.group import Group
from forebay.pipeline.journal import Journal
from forebay.pipeline.settlement import abandon, settle
from forebay.pipeline.sifting import Receiver, Sifting
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.delivery")

PROBE_EVENTS_MAX = 1
"""What goes to see if the sink is back: a struggling one is not made to fail with a thousand events."""

UNHEARD = Outcome(Verdict.RETRY, "unknown", "the answer was not waited for")


class Delivery:
    """The one owner of the way from channel to sink."""

    def __init__(
        self, channel: Channel, sink: Receiver, journal: Journal, findings: Findings, counters: Counters
    ) -> None:
        self._channel = channel
        self._sink = sink
        self._sifting = Sifting(sink, findings.evidence.is_taking_since)
        self._journal = journal
        self._gate = findings.gate
        self._findings = findings
        self._counters = counters
        self._in_flight: set[asyncio.Task[Sequence[Outcome]]] = set()

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            await self._channel.wait_due()
            self._start(await self._gate.enter())

    async def drain(self, timeout_s: float) -> None:
        """Deliver what is in the channel, then give up what is left: it stays in the spool, or goes there.

        Call after `run` has been cancelled, and when nothing enters the channel any more.
        """
        self._channel.flush()
        try:
            async with asyncio.timeout(timeout_s):
                # A sink that is known to be down is not waited for: the next start delivers.
                while self._channel.events and self._gate.health is Health.GOOD:
                    self._start(await self._gate.enter())
                if self._in_flight:
                    await asyncio.wait(self._in_flight)
        except TimeoutError:
            log.warning("shutdown_timeout", timeout_s=timeout_s, bulks_in_flight=len(self._in_flight))
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        self._journal.settle(abandon(self._channel.drain(), self._journal.new_id))

    async def deliver_alone(self, groups: Sequence[Group]) -> Sequence[Outcome]:
        """Deliver groups in a bulk of their own, past the gate: that it fails says nothing about other bulks."""
        for group in groups:
            group.taken = len(group.entries)
        entries = [entry for group in groups for entry in group.entries]
        return await self._deliver(Bulk(entries, [(group, group.entries) for group in groups]), None)

    def _start(self, ticket: Ticket) -> None:
        if not self._channel.events:  # what was there has been put on hold meanwhile
            self._gate.turn_back()
            return
        if ticket.probe:
            self._channel.bring_forward()
        bulk = self._channel.take(PROBE_EVENTS_MAX if ticket.probe else None, self._sifting.size.bytes_max)
        task = asyncio.create_task(self._deliver(bulk, ticket))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _deliver(self, bulk: Bulk, ticket: Ticket | None) -> Sequence[Outcome]:
        outcomes: Sequence[Outcome] = [UNHEARD] * len(bulk.entries)
        number = self._findings.evidence.number_bulk()
        began_at = time.perf_counter()
        self._counters.bulks_in_flight += 1
        try:
            outcomes = await self._ask(number, bulk)
        finally:
            seconds = time.perf_counter() - began_at
            self._counters.bulks_in_flight -= 1
            self._counters.bulks += 1
            self._counters.bulk_seconds += seconds
            outcomes = self._findings.evidence.weigh(number, bulk, outcomes)
            self._finish(bulk, outcomes, ticket, seconds)
        return outcomes

    async def _ask(self, number: int, bulk: Bulk) -> list[Outcome]:
        for index in {group.index for group, _ in bulk.slices}:
            self._sink.expect(index)
        try:
            outcomes = await self._sifting.deliver(number, bulk.entries, _find_fresh(bulk))
        except Exception as error:
            # A bug of ours must not lose what the bulk held, nor end the delivery of others.
            log.exception("sink_failed", events=len(bulk.entries))
            return [Outcome(Verdict.RETRY, type(error).__name__, str(error), whole=True)] * len(bulk.entries)
        if len(outcomes) != len(bulk.entries):
            log.error("sink_outcomes_missing", events=len(bulk.entries), outcomes=len(outcomes))
            reason = f"{len(outcomes)} outcomes for {len(bulk.entries)} events"
            return [Outcome(Verdict.RETRY, "unknown", reason, whole=True)] * len(bulk.entries)
        return outcomes

    def _finish(self, bulk: Bulk, outcomes: Sequence[Outcome], ticket: Ticket | None, seconds: float) -> None:
        ended_at_ms = now_ms()
        settlements = settle(bulk, outcomes, ended_at_ms, self._journal.new_id, self._findings.evidence)
        for settlement in settlements:
            self._journal.settle(settlement)
        self._findings.tell(ticket, bulk, outcomes, ended_at_ms, seconds)
        _tell_dead([letter for settlement in settlements for letter in settlement.transaction.dead])


def _find_fresh(bulk: Bulk) -> int:
    """Return the place of the first event that was never refused, 0 if there is none."""
    place = 0
    for group, entries in bulk.slices:
        if not group.history.refused_status:
            return place
        place += len(entries)
    return 0


def _tell_dead(letters: Sequence[DeadLetter]) -> None:
    if letters:
        log.warning(
            "dead_letters", events=len(letters), first_type=letters[0].error_type, first_reason=letters[0].reason
        )
