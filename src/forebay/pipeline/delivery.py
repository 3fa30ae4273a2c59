"""Delivery: takes bulks from the channel, hands them to the sink, settles every outcome, and tells everybody concerned.

Every event taken is settled on every path: an answer, an error of the sink's, a bug in it, a cancellation. An event
that is not known to be settled counts as retry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from forebay.clock import now_ms
from forebay.model import DELIVERED, Outcome, SameOutcome, Verdict, are_delivered
from forebay.pipeline.channel import Channel
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.gate import Gate, Health, Permit, Report, judge
from forebay.pipeline.group import Bulk, Group, Settlement
from forebay.pipeline.holds import Holds
from forebay.pipeline.journal import Journal
from forebay.pipeline.settlement import abandon, settle
from forebay.sinks.sifting import Receiver, Sifting
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.delivery")

PROBE_EVENTS_MAX = 1
"""The events of a probe: a struggling sink is not made to fail with a thousand."""

UNHEARD = Outcome(Verdict.RETRY, "unknown", "the answer was not waited for")


class Delivery:
    """The one owner of the way from channel to sink."""

    def __init__(
        self,
        channel: Channel,
        sink: Receiver,
        journal: Journal,
        gate: Gate,
        holds: Holds,
        evidence: Evidence,
        counters: Counters,
    ) -> None:
        self._channel = channel
        self._sink = sink
        self._sifting = Sifting(sink, evidence.is_taking_since)
        self._journal = journal
        self._gate = gate
        self._holds = holds
        self._evidence = evidence
        self._counters = counters
        self._in_flight: set[asyncio.Task[Sequence[Outcome]]] = set()

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            await self._channel.wait_due()
            self._start(await self._gate.enter())

    async def drain(self, timeout_s: float) -> None:
        """Deliver everything in the channel, then give up the rest: it stays in the spool, or goes there.

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
        self._settle(abandon(self._channel.drain(), now_ms(), self._journal.new_id, self._evidence))

    async def deliver_alone(self, groups: Sequence[Group]) -> Sequence[Outcome]:
        """Deliver groups in a bulk of their own, past the gate: its failure says nothing about other bulks."""
        for group in groups:
            group.cut = len(group.entries)
        entries = [entry for group in groups for entry in group.entries]
        return await self._deliver(Bulk(entries, [(group, group.entries) for group in groups]), None)

    def _start(self, permit: Permit) -> None:
        if not self._channel.events:  # all of it has been put on hold meanwhile
            self._gate.leave_unused()
            return
        if permit.is_probe:
            self._channel.bring_forward()
        bulk = self._channel.take(PROBE_EVENTS_MAX if permit.is_probe else None, self._sifting.size.bytes_max)
        task = asyncio.create_task(self._deliver(bulk, permit))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _deliver(self, bulk: Bulk, permit: Permit | None) -> Sequence[Outcome]:
        """Deliver a bulk and settle it; without a permit it goes past the gate."""
        outcomes: Sequence[Outcome] = SameOutcome(UNHEARD, len(bulk.entries))
        number = self._evidence.number_bulk()
        began_at = time.perf_counter()
        self._counters.bulks_in_flight += 1
        try:
            outcomes = await self._ask(number, bulk)
        finally:
            seconds = time.perf_counter() - began_at
            self._counters.bulks_in_flight -= 1
            self._counters.bulks += 1
            self._counters.bulk_seconds += seconds
            outcomes = self._evidence.weigh(number, bulk, outcomes)
            ended_at_ms = now_ms()
            self._settle(settle(bulk, outcomes, ended_at_ms, self._journal.new_id, self._evidence))
            self._count(outcomes)
            self._evidence.failures.note(outcomes, is_alone=permit is None)
            self._put_on_hold(bulk, outcomes, ended_at_ms)
            self._tell_gate(permit, judge(outcomes), seconds)
        return outcomes

    async def _ask(self, number: int, bulk: Bulk) -> Sequence[Outcome]:
        for index in {group.index for group, _ in bulk.slices}:
            self._sink.expect(index)
        try:
            return await self._sifting.deliver(number, bulk.entries, _find_fresh(bulk))
        except Exception as error:
            # A bug of ours must not lose the events of the bulk, nor end the delivery of others.
            log.exception("sink_failed", events=len(bulk.entries))
            failed = Outcome(Verdict.RETRY, type(error).__name__, str(error), whole=True)
            return SameOutcome(failed, len(bulk.entries))

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            self._journal.settle(settlement)
        letters = [letter for settlement in settlements for letter in settlement.transaction.dead]
        if letters:
            log.warning(
                "dead_letters", events=len(letters), first_type=letters[0].error_type, first_reason=letters[0].reason
            )

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        self._counters.outcomes[Verdict.DELIVERED] += outcomes.count(DELIVERED)
        if are_delivered(outcomes):
            return
        self._counters.outcomes.update(outcome.verdict for outcome in outcomes if outcome != DELIVERED)
        unexpected = [outcome for outcome in outcomes if outcome.is_unexpected]
        if unexpected:
            self._counters.unexpected_answers += 1
            log.warning("sink_answer_unexpected", reason=unexpected[0].reason, events=len(unexpected))

    def _put_on_hold(self, bulk: Bulk, outcomes: Sequence[Outcome], ended_at_ms: int) -> None:
        """Lift holds and set new ones; groups of an index that is newly on hold leave the channel."""
        if not self._holds and are_delivered(outcomes):
            return
        for index in self._holds.learn(bulk, outcomes, ended_at_ms):
            groups = self._channel.withdraw(index)
            self._settle(abandon(groups, ended_at_ms, self._journal.new_id, self._evidence))
            if groups:
                self._holds.note_fresh(index)

    def _tell_gate(self, permit: Permit | None, report: Report | None, seconds: float) -> None:
        if permit is None:
            if report is not None and report.health is Health.GOOD:
                self._gate.reopen()
            return
        if report is None:
            self._gate.leave_unused()
            return
        before = self._gate.health
        self._gate.leave(permit, report, seconds)
        if self._gate.health not in (Health.GOOD, before):
            log.warning(
                "sink_unwell",
                health=self._gate.health.value,
                cause=report.cause,
                advice=report.failed.advice if report.failed else "",
                consequence="events wait, and none is lost",
            )


def _find_fresh(bulk: Bulk) -> int:
    """Return the place of the first event that was never refused, 0 if there is none."""
    place = 0
    for group, entries in bulk.slices:
        if not group.history.refused_status:
            return place
        place += len(entries)
    return 0
