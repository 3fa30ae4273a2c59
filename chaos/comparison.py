"""Compares the answers that clients got with the documents in OpenSearch and the dead letters."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chaos.load import Taken, digest
from chaos.stage import Kill
from testbed.servers.forebay import ForebayServer
from testbed.traffic.index import Index

DEAD_LIMIT = 10_000
COMMAND_TIMEOUT_S = 60


class Unexplained(Exception):
    """Something was lost that a kill cannot have taken; the message names the contradiction."""


@dataclass
class Comparison:
    """The fate of the events that were answered with 200.

    Attributes:
        lost: they are neither in OpenSearch, in their index and with equal fields, nor dead letters with a reason.
        duplicated: they are in more than one index, or in one and a dead letter.
        unanswered: documents of events whose sender never got an answer with this `log_id`.
        dead: events that are dead letters.
        spoilt: the faults of some that are there, but wrong; they count as lost.
    """

    lost: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    unanswered: int = 0
    dead: set[str] = field(default_factory=set)
    spoilt: list[str] = field(default_factory=list)


async def compare(taken: Mapping[str, Taken], index: Index, server: ForebayServer) -> Comparison:
    """Read back every document and dead letter, and compare."""
    result = Comparison(dead=await asyncio.to_thread(read_dead, server))
    seen: Counter[str] = Counter()
    right: set[str] = set()
    async for index_name, log_id, source in index.copies():
        seen[log_id] += 1
        event = taken.get(log_id)
        if event is None:
            result.unanswered += 1
        elif wrong := _find_wrong(event, index_name, log_id, source):
            result.spoilt.append(f"{log_id}: {wrong}")
        else:
            right.add(log_id)
    result.lost = taken.keys() - right - result.dead
    result.duplicated = {log_id for log_id, copies in seen.items() if copies + (log_id in result.dead) > 1}
    return result


def read_dead(server: ForebayServer) -> set[str]:
    """Return the `log_id`s of the dead letters that have a reason, as an operator would see them."""
    done = subprocess.run(
        [Path(sys.executable).parent / "forebay", "dead", "list", "--json", "--limit", str(DEAD_LIMIT)],
        cwd=server.folder,
        env={"PATH": os.environ.get("PATH", os.defpath), **server.settings},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=True,
    )
    # An event may hold characters that Python takes for the end of a line.
    letters = [json.loads(line) for line in done.stdout.split("\n") if line]
    return {letter["log_id"] for letter in letters if letter["error_type"] and letter["reason"]}


def explain_unwritten(lost: set[str], taken: Mapping[str, Taken], kills: list[Kill], age_s_max: float) -> str:
    """Return the reason why the lost events can only have been in the memory of a killed process.

    Each must have been acknowledged from memory, before a kill and not longer before than `age_s_max`, and no kill can
    have taken more events than were unsettled then.

    Raises:
        Unexplained: they cannot.
    """
    ages: list[float] = []
    victims: Counter[Kill] = Counter()
    for log_id in lost:
        event = taken[log_id]
        kill = next((kill for kill in kills if kill.heard_until >= event.answered_at), None)
        if event.ack != "memory" or kill is None:
            raise Unexplained(
                f"{log_id} was answered with ack={event.ack}, {'before' if kill else 'after'} the last kill"
            )
        victims[kill] += 1
        ages.append(max(0.0, kill.at - event.answered_at))
    if (oldest_s := max(ages, default=0.0)) > age_s_max:
        raise Unexplained(f"one was answered {oldest_s:.2f} s before a kill, and {age_s_max:g} are enough to write it")
    for kill, count in victims.items():
        if count > kill.unsettled_max:
            raise Unexplained(f"a kill took {count:,} events, and only {kill.unsettled_max:,} were unsettled")
    unsettled = sum(kill.unsettled_max for kill in victims)
    return (
        f"{len(lost):,} lost, in {len(victims)} of {len(kills)} kills; each was answered from memory at most "
        f"{oldest_s:.2f} s before a kill, and up to {unsettled:,} events were unsettled in memory then"
    )


def _find_wrong(event: Taken, index_name: str, log_id: str, source: dict[str, object]) -> str:
    if event.month is not None and not index_name.endswith(event.month):
        return f"in {index_name}, not in the index of {event.month}"
    if source["log_id"] != log_id:
        return f"with the log_id {source['log_id']}"
    info = source["event_info"]
    if not isinstance(info, dict) or digest(info) != event.digest:
        return "with other fields"
    return ""
