"""The wake-up of redelivery: everybody whose news makes pending events go tells it here."""

from __future__ import annotations

import asyncio

SOON_S = 5.0
"""When to try events again that a sink which is well was too busy for."""


class Wake:
    """Says when redelivery goes through the spool.

    Attributes:
        passes: how many passes have begun.
        is_whole: whether the newest one takes every event, also those that were refused with a status that may pass.
        is_sink_well: set by the gate; of a sink that is not well it will be heard when it is back.
        is_probe_wanted: whether no event was there that could find out if the sink is back.
    """

    def __init__(self, interval_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """Take `interval_s` between two rounds: an early pass never waits longer."""
        self._soon_s = min(SOON_S, interval_s)
        self._loop = loop
        self._event = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.passes = 0
        self.is_whole = False
        self.is_sink_well = True
        self.is_probe_wanted = False

    def pass_now(self) -> None:
        """Begin a pass through everything: the sink or an index is back, it is time, or somebody asked."""
        self.is_whole = True
        self._begin()

    def pass_soon(self) -> None:
        """Begin a pass shortly, through the events that need not wait: the sink is well, and left something."""
        if self.is_sink_well and self._timer is None:
            self._timer = self._loop.call_later(self._soon_s, self._begin_soon)

    def go_on(self) -> None:
        """Go on behind the last pass: something has become pending since, as the channel was full for a while."""
        self._event.set()

    def seek_probe(self) -> None:
        """Begin a pass now, or as soon as something is pending: an event has to find out if the sink is back."""
        self.is_probe_wanted = True
        self.pass_now()

    def offer_probe(self) -> None:
        """Begin a pass if a probe is wanted: events have become pending."""
        if self.is_probe_wanted:
            self.pass_now()

    async def wait(self) -> None:
        """Wait until there may be something to redeliver."""
        await self._event.wait()
        self._event.clear()

    def _begin_soon(self) -> None:
        self._timer = None
        self._begin()

    def _begin(self) -> None:
        # Also while another is at its first row: rows that the other left out may be pending by now.
        self.passes += 1
        self._event.set()
