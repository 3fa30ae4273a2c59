"""What a bulk found out, told to everybody whom it concerns: counters, doubts, holds, gate, and the log."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from forebay.model import DELIVERED, UNEXPECTED_ANSWER, Outcome, Verdict
from forebay.pipeline.channel import Bulk
from forebay.pipeline.evidence import Evidence
from forebay.pipeline.gate import WELL, Finding, Gate, Health, Ticket, judge
from forebay.pipeline.holds import Holds, is_about_index
from forebay.pipeline.poison import blocks
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.delivery")


class Findings:
    """Tells what bulks found out.

    Attributes:
        gate: whether bulks may go.
        holds: the indices of which none may.
        evidence: what speaks for and against single groups.
    """

    def __init__(self, gate: Gate, holds: Holds, evidence: Evidence, counters: Counters) -> None:
        self.gate = gate
        self.holds = holds
        self.evidence = evidence
        self._counters = counters

    def tell(self, ticket: Ticket | None, bulk: Bulk, outcomes: Sequence[Outcome], now_ms: int, seconds: float) -> None:
        """Tell what became of the events of a bulk that took so many seconds; one that went alone has no ticket."""
        # The usual bulk is delivered whole, and counting is faster than looking at each outcome.
        delivered = outcomes.count(DELIVERED)
        others = [outcome for outcome in outcomes if outcome != DELIVERED] if delivered < len(outcomes) else []
        self._counters.outcomes[Verdict.DELIVERED] += delivered
        self._counters.outcomes.update(outcome.verdict for outcome in others)
        self._tell_unexpected(others)
        finding = judge(outcomes) if others else WELL
        if self.holds or any(is_about_index(outcome) for outcome in others):
            self.holds.learn(bulk, outcomes, now_ms)
        self._doubt(outcomes, alone=ticket is None)
        if ticket is None:
            if finding.health is Health.GOOD:
                self.gate.reopen()
        else:
            self._tell_gate(ticket, finding, seconds)

    def _doubt(self, outcomes: Sequence[Outcome], *, alone: bool) -> None:
        if any(outcome.settled for outcome in outcomes):
            self.evidence.doubts.taken += 1
        elif not alone and any(map(blocks, outcomes)):
            self.evidence.doubts.failed += 1

    def _tell_gate(self, ticket: Ticket, finding: Finding, seconds: float) -> None:
        was = self.gate.health
        self.gate.leave(ticket, finding, seconds)
        if self.gate.health not in (Health.GOOD, was):
            log.warning(
                "sink_unwell",
                health=self.gate.health.value,
                cause=finding.cause,
                advice=finding.failed.advice if finding.failed else "",
            )

    def _tell_unexpected(self, outcomes: Sequence[Outcome]) -> None:
        unexpected = [outcome for outcome in outcomes if outcome.error_type == UNEXPECTED_ANSWER]
        if unexpected:
            self._counters.unexpected_answers += 1
            log.warning("sink_answer_unexpected", reason=unexpected[0].reason, events=len(unexpected))
