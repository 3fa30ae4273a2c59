"""What a bulk found out, told to everybody whom it concerns: counters, holds, gate, and the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from forebay.model import DELIVERED, UNEXPECTED_ANSWER, Entry, Outcome, Verdict
from forebay.pipeline.gate import WELL, Gate, Health, Ticket, judge
from forebay.pipeline.holds import Holds
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.delivery")


class Findings:
    """Tells what bulks found out.

    Attributes:
        on_retry: called when a sink that is well did not take everything: it is to be tried again soon.
    """

    def __init__(self, gate: Gate, holds: Holds, counters: Counters) -> None:
        self._gate = gate
        self._holds = holds
        self._counters = counters
        self.on_retry: Callable[[], None] = lambda: None

    def tell(
        self, ticket: Ticket, entries: Sequence[Entry], outcomes: Sequence[Outcome], now_ms: int, seconds: float
    ) -> None:
        """Tell what became of the events of a bulk that took so many seconds."""
        # The usual bulk is delivered whole, and counting is faster than looking at each outcome.
        delivered = outcomes.count(DELIVERED)
        others = [outcome for outcome in outcomes if outcome != DELIVERED] if delivered < len(outcomes) else []
        self._counters.outcomes[Verdict.DELIVERED] += delivered
        self._counters.outcomes.update(outcome.verdict for outcome in others)
        self._tell_unexpected(others)
        finding = judge(outcomes) if others else WELL
        if self._holds or any(outcome.verdict is Verdict.PAUSE and not outcome.whole for outcome in others):
            self._holds.learn(entries, outcomes, now_ms)
        was = self._gate.health
        self._gate.leave(ticket, finding, seconds)
        health = self._gate.health
        if health is not Health.GOOD and health is not was:
            log.warning(
                "sink_unwell",
                health=health.value,
                cause=finding.cause,
                advice=finding.failed.advice if finding.failed else "",
                events=len(outcomes),
            )
        if health is Health.GOOD and any(outcome.verdict is Verdict.RETRY for outcome in others):
            self.on_retry()

    def _tell_unexpected(self, outcomes: Sequence[Outcome]) -> None:
        unexpected = [outcome for outcome in outcomes if outcome.error_type == UNEXPECTED_ANSWER]
        if unexpected:
            self._counters.unexpected_answers += 1
            log.warning("sink_answer_unexpected", reason=unexpected[0].reason, events=len(unexpected))
