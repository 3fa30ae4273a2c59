"""Chooses the host of a request: the living in turn, and one try at a time for a dead one that is due. No effects.

A dead host is left out for a time that doubles with every failure in a row, as in opensearch-py's pool of connections
(https://docs.opensearch.org/latest/clients/python-low-level/), with jitter and with a cap.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from forebay.backoff import Backoff

BACKOFF = Backoff(delay_s_min=1.0, delay_s_max=30.0)


class _Host(Struct):
    failures: int = 0  # in a row
    due_at_s: float = 0.0  # when a dead one is tried again
    is_probed: bool = False


class Hosts:
    """Hosts by number. The caller passes the time, in seconds of one clock that only goes forward."""

    def __init__(self, count: int, backoff: Backoff) -> None:
        self._hosts = [_Host() for _ in range(count)]
        self._backoff = backoff
        self._turn = 0

    def choose(self, now_s: float, tried: Collection[int] = ()) -> int | None:
        """Return the host to try next, or None if no other host is likely to do better than those that were tried.

        The caller reports the result with `answered`, `failed` or `dropped`.
        """
        for number, host in enumerate(self._hosts):
            if host.failures and host.due_at_s <= now_s and not host.is_probed and number not in tried:
                host.is_probed = True
                return number
        living = [number for number, host in enumerate(self._hosts) if not host.failures and number not in tried]
        if living:
            self._turn += 1
            return living[self._turn % len(living)]
        if tried:
            return None
        first_due = min(range(len(self._hosts)), key=lambda number: self._hosts[number].due_at_s)
        self._hosts[first_due].is_probed = True
        return first_due

    def answered(self, number: int) -> None:
        """Record that a host works."""
        host = self._hosts[number]
        host.failures, host.is_probed = 0, False

    def failed(self, number: int, now_s: float) -> None:
        """Record that a host is dead, and leave it out for a time."""
        host = self._hosts[number]
        # A request that was sent before the host was found dead, and fails later, tells nothing new.
        if host.failures and not host.is_probed and now_s < host.due_at_s:
            return
        host.failures += 1
        host.is_probed = False
        host.due_at_s = now_s + self._backoff.delay_s(host.failures)

    def dropped(self, number: int) -> None:
        """Record that nobody waited for the result."""
        self._hosts[number].is_probed = False
