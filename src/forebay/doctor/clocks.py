"""Checks whether our clock is right, as far as others can tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain

from msgspec import Struct

from forebay.clock import now_ms
from forebay.doctor import spool_state
from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, ok, warn
from forebay.doctor.opensearch.answers import AnswerUnknown, NotAsked
from forebay.doctor.server import ServerSilent, ask
from forebay.errors import SpoolError

OFFSET_S_MAX = 5
DATE_MS = 1_000
"""A Date line has whole seconds (RFC 9110, section 5.6.7)."""

ADVICE = "let NTP keep both clocks: an index's month, the order of events and the validity of tokens depend on them"


class _Node(Struct):
    name: str
    timestamp: int


class _Nodes(Struct):
    nodes: dict[str, _Node]


def check(context: Context) -> Iterator[Finding]:
    """Compare our clock with those of OpenSearch's nodes and of the running server, and with the newest events."""
    found = list(chain(_check_nodes(context), _check_server(context), _check_spools(context)))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    yield from found or [ok(f"{now}; there is nothing to compare it with")]


def judge_clock(name: str, shown_ms: int, asked_at_ms: int, answered_at_ms: int, precision_ms: int = 1) -> Finding:
    """Judge a clock by our own, which showed two times around the moment when the other one was read."""
    offset_ms = min(0, shown_ms + precision_ms - asked_at_ms) or max(0, shown_ms - answered_at_ms)
    if abs(offset_ms) <= OFFSET_S_MAX * 1000:
        return ok(f"{name}'s agrees with ours")
    direction = "ahead of" if offset_ms > 0 else "behind"
    return warn(f"{name}'s is {abs(offset_ms) / 1000:.0f} s {direction} ours", ADVICE)


def _check_nodes(context: Context) -> Iterator[Finding]:
    """Compare the nodes' clocks, which are part of an answer: OpenSearch sends no Date."""
    try:
        nodes = context.answers().read("clocks", _Nodes).nodes.values()
        _, asked_at_ms, answered_at_ms = context.answers().timed("clocks")
    except (NotAsked, AnswerUnknown):
        return
    for node in nodes:
        yield judge_clock(f"OpenSearch node {node.name}", node.timestamp, asked_at_ms, answered_at_ms)


def _check_server(context: Context) -> Iterator[Finding]:
    if not context.settings.server_port:
        return
    asked_at_ms = now_ms()
    try:
        date_ms = ask(context.settings, "/ping").date_ms
    except ServerSilent:
        return
    if date_ms is not None:
        yield judge_clock("the server", date_ms, asked_at_ms, now_ms(), DATE_MS)


def _check_spools(context: Context) -> Iterator[Finding]:
    for path in context.spools:
        try:
            newest_ms = spool_state.read_state(path).newest_at_ms
        except SpoolError:
            continue
        ahead_s = 0 if newest_ms is None else newest_ms / 1000 - time.time()
        if ahead_s > OFFSET_S_MAX:
            text = f"the newest events in {path.name} are {ahead_s:.0f} s from the future: it was set back"
            yield warn(text, ADVICE)
