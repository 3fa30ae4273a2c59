"""Whether our clock is right, as far as others can tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from forebay.clock import now_ms
from forebay.doctor import spool_look as checkup
from forebay.doctor.server import ServerSilent, ask
from forebay.errors import SinkUnreachable, SpoolError
from forebay.findings import Finding, Level
from forebay.settings import Settings

WHAT = "clock"
OFFSET_S_MAX = 5
DATE_MS = 1_000
"""A Date line has whole seconds (RFC 9110, section 5.6.7)."""

ADVICE = "let NTP keep both clocks: an index's month, the order of events and the validity of tokens depend on them"


def look_at_clocks(settings: Settings, spools: list[Path]) -> list[Finding]:
    """Compare our clock with those of OpenSearch's nodes, of the running server, and with the newest row."""
    found = [*_look_at_nodes(settings), *_look_at_server(settings), *_look_at_spools(spools)]
    return found or [Finding(Level.OK, WHAT, f"{_show(time.time())}; there is nothing to compare it with")]


def judge_clock(name: str, shown_ms: int, asked_at_ms: int, answered_at_ms: int, precision_ms: int = 1) -> Finding:
    """Say how far a clock is from ours, which showed two times around the moment when it was read."""
    offset_ms = min(0, shown_ms + precision_ms - asked_at_ms) or max(0, shown_ms - answered_at_ms)
    if abs(offset_ms) <= OFFSET_S_MAX * 1000:
        return Finding(Level.OK, WHAT, f"{name}'s agrees with ours")
    direction = "ahead of" if offset_ms > 0 else "behind"
    return Finding(Level.WARN, WHAT, f"{name}'s is {abs(offset_ms) / 1000:.0f} s {direction} ours", ADVICE)


def _look_at_nodes(settings: Settings) -> Iterator[Finding]:
    if not settings.open_search_dns:
        return
    from forebay.doctor.opensearch import read_clocks  # noqa: PLC0415 - aiohttp takes 25 MiB

    try:
        for clock in asyncio.run(read_clocks(settings)):
            yield judge_clock(f"OpenSearch node {clock.name}", *clock[1:])
    except SinkUnreachable:
        # The lines about OpenSearch say why.
        return


def _look_at_server(settings: Settings) -> Iterator[Finding]:
    if not settings.server_port:
        return
    asked_at_ms = now_ms()
    try:
        date_ms = ask(settings, "/ping").date_ms
    except ServerSilent:
        return
    if date_ms is not None:
        yield judge_clock("the server", date_ms, asked_at_ms, now_ms(), DATE_MS)


def _look_at_spools(spools: list[Path]) -> Iterator[Finding]:
    for path in spools:
        try:
            newest_ms = checkup.look(path).newest_at_ms
        except SpoolError:
            continue
        ahead_s = 0 if newest_ms is None else newest_ms / 1000 - time.time()
        if ahead_s > OFFSET_S_MAX:
            text = f"the newest events in {path.name} are {ahead_s:.0f} s from the future: it was set back"
            yield Finding(Level.WARN, WHAT, text, ADVICE)


def _show(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))
