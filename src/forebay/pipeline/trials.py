"""Trials: bulks of an index on hold, one at a time, to find out if the sink takes its events again.

A trial has as many events as a bulk. Those that were never refused come first, the newest and the oldest: one of them
that is taken says that the index is well, and that those which are refused beside it are at fault themselves. If there
is room left, events follow that were refused before, others each time.
"""

from __future__ import annotations

import asyncio

import structlog

from forebay.errors import SpoolUnavailable
from forebay.pipeline.delivery import Delivery
from forebay.pipeline.findings import Findings
from forebay.pipeline.gate import Health
from forebay.pipeline.holds import Hold
from forebay.pipeline.journal import Journal
from forebay.pipeline.reading import ONE_GROUP, GroupStore, load_trial
from forebay.pipeline.suspects import Suspects

log = structlog.get_logger("forebay.holds")


class Trials:
    """Delivers trial bulks."""

    def __init__(
        self, store: GroupStore, journal: Journal, delivery: Delivery, findings: Findings, suspects: Suspects
    ) -> None:
        self._store = store
        self._journal = journal
        self._delivery = delivery
        self._findings = findings
        self._suspects = suspects

    async def run(self) -> None:
        """Try indices on hold for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._try(await self._findings.holds.wait_due()))

    async def _try(self, hold: Hold) -> None:
        try:
            await self._deliver(hold)
        except SpoolUnavailable as error:
            log.warning("spool_unavailable", cause=str(error))
        finally:
            self._findings.holds.end_trial(hold)

    async def _deliver(self, hold: Hold) -> None:
        await self._journal.wait_settling()
        # Also while the sink is not well: if there are no other events nothing else finds out that it is back. But a
        # struggling one is not made to fail with a thousand.
        room = self._journal.limits if self._findings.gate.health is Health.GOOD else ONE_GROUP
        stored = await load_trial(self._store, hold.index, hold.after_id, self._journal.ledger.held, room)
        # The hold may have been lifted while they were read.
        if hold.index not in self._findings.holds:
            return
        # Where there are only suspects one of them goes: nothing else would ever find out.
        going = [group for group in stored if not self._suspects.keep(group)] or stored[:1]
        if not going:
            if not hold.after_id and self._is_gone(hold.index):
                self._findings.holds.lift(hold.index)
            hold.after_id = 0
            return
        hold.after_id = max((group.id for group in going if group.history.refused_status), default=0)
        groups = [self._journal.take_up(group) for group in going]
        await self._delivery.deliver_alone(groups)
        await self._journal.wait_released([group.id for group in going])

    def _is_gone(self, index: str) -> bool:
        """Say whether no events of an index are in memory: an operator may have buried those in the spool."""
        return all(group.index != index for group in self._journal.ledger.held.values())
