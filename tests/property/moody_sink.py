"""A model of OpenSearch, and of the network before it, that gives each answer there is, at random, and holds documents.

Its answers are bytes that the real reader of answers reads.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from forebay.model import DELIVERED, Entry, Outcome, Verdict, entry_address
from forebay.sinks.opensearch.answers import read_answer

FAULTY, WALLED, POISON, DEADLY = "faulty", "walled", "poison", "deadly"
"""Parts of the `_id`. The sink never takes the first kind; a firewall refuses each request with the second; the third
blocks each bulk; the fourth ends the process while the sink is not well."""

OK = (201, None, None)
THERE = (409, "version_conflict_engine_exception", "document already exists")
FAULTS = (
    (400, "mapper_parsing_exception", "failed to parse field [param]"),
    (400, "strict_dynamic_mapping_exception", "dynamic introduction of [x] is not allowed"),
    (400, "illegal_argument_exception", "immense term in field [label]"),
)
BUSY = (
    (429, "rejected_execution_exception", "rejected execution of coordinating operation"),
    (429, "circuit_breaking_exception", "[parent] data too large"),
    (503, "unavailable_shards_exception", "primary shard is not active"),
    (500, "node_closed_exception", "node closed"),
    (418, "teapot", "short and stout"),
)
BLOCKS = (
    (429, "cluster_block_exception", "blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]"),
    (403, "cluster_block_exception", "blocked by: [FORBIDDEN/8/index write (api)]"),
    (403, "security_exception", "no permissions for [indices:data/write/bulk]"),
    (400, "validation_exception", "this action would add [2] total shards, but this cluster has maximum shards open"),
    (404, "index_not_found_exception", "no such index and [action.auto_create_index] is [false]"),
)
WHOLE = (
    (429, b'{"error":{"type":"rejected_execution_exception","reason":"rejected execution of coordinating operation"}}'),
    (429, b"<html>slow down</html>"),
    (401, b"Unauthorized"),
    (403, b'{"error":{"type":"security_exception","reason":"no permissions"},"status":403}'),
    (404, b'{"error":"no handler found for uri"}'),
    (302, b""),
    (500, b'{"error":{"type":"null_pointer_exception","reason":"null"},"status":500}'),
    (502, b"<html>bad gateway</html>"),
    (503, b'{"error":{"type":"cluster_block_exception","reason":"no master"},"status":503}'),
    (504, b""),
    (200, b"<html>a login page</html>"),
    (200, b'{"errors":false,"items":[]}'),
)
WALL = (400, b"<html>your request was blocked</html>")
SPLIT = (
    WALL,
    (413, b""),
    (400, b'{"error":{"type":"illegal_argument_exception","reason":"malformed action"},"status":400}'),
)
"""Answers for a bulk of several events: an event that is refused so alone, while others are taken, dies."""

ODD = (
    "bug",
    "bug after taking",
    "no answer",
    "no answer after taking",
    "too few outcomes",
    "too many outcomes",
    "slow",
)
NO_ANSWER = Outcome(Verdict.RETRY, "unreachable", "no answer in time", whole=True)


class MoodySink:
    """A sink that holds each `_id` once and, until it is well, answers as it likes.

    Attributes:
        well: whether it takes everything that is not faulty.
        on_deadly: called when a deadly event came; the bulk is never answered then.
        held: its documents.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._blocked: dict[str, Any] = {}
        self.well = False
        self.on_deadly: Callable[[], None] = lambda: None
        self.held: dict[str, Entry] = {}

    def repair(self, entry: Entry) -> Entry:
        """Return the entry in another form, which says the same."""
        return b"%b \n" % entry[:-1]

    def expect(self, index: str) -> None:
        """Do nothing."""

    async def deliver(self, entries: list[Entry]) -> Sequence[Outcome]:
        await asyncio.sleep(0)
        ids = [entry_address(entry).log_id for entry in entries]
        if not self.well and any(DEADLY in log_id for log_id in ids):
            self.on_deadly()
            await asyncio.Event().wait()
        if any(POISON in log_id for log_id in ids):
            return [NO_ANSWER] * len(entries)
        odd = "" if self.well or self._chance.random() < 0.8 else self._chance.choice(ODD)
        if odd == "slow":
            await asyncio.sleep(0.01)
        if odd == "bug":
            raise RuntimeError(odd)
        outcomes = [NO_ANSWER] * len(entries) if odd == "no answer" else self._answer(entries)
        if odd == "bug after taking":
            raise OSError("connection lost")
        if odd == "no answer after taking":
            return [NO_ANSWER] * len(entries)
        return outcomes[:-1] if odd == "too few outcomes" else [*outcomes, *[DELIVERED] * (odd == "too many outcomes")]

    def _answer(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        status, body = self._give(entries)
        return read_answer(status, body, len(entries))

    def _give(self, entries: Sequence[Entry]) -> tuple[int, bytes]:
        if not self.well and self._chance.random() < 0.15:
            return self._chance.choice(WHOLE + SPLIT * (len(entries) > 1))
        if any(WALLED in entry_address(entry).log_id for entry in entries):
            return WALL
        self._block_or_not()
        items = [
            {"create": {"status": status, **({"error": {"type": kind, "reason": reason}} if kind else {})}}
            for status, kind, reason in map(self._take, entries)
        ]
        return 200, json.dumps({"errors": any("error" in item["create"] for item in items), "items": items}).encode()

    def _block_or_not(self) -> None:
        if self.well:
            self._blocked.clear()
        elif self._chance.random() < 0.1:
            index = self._chance.choice(("events_test_2026-11", "events_test_2026-12"))
            if self._blocked.pop(index, None) is None:
                self._blocked[index] = self._chance.choice(BLOCKS)

    def _take(self, entry: Entry) -> Any:
        address = entry_address(entry)
        if address.index in self._blocked:
            return self._blocked[address.index]
        if not self.well and self._chance.random() < 0.1:
            return self._chance.choice(BUSY)
        if FAULTY in address.log_id:
            return self._chance.choice(FAULTS)
        was_there = address.log_id in self.held
        original = entry.replace(b" \n", b"\n")
        assert self.held.setdefault(address.log_id, original) == original
        if not self.well and self._chance.random() < 0.05:
            return self._chance.choice(BUSY)
        return THERE if was_there else OK
