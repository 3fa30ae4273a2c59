"""One trial: a steady load, OpenSearch away in its middle, and the server killed in the middle of that."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, NamedTuple, Protocol

import aiohttp

from benchmarks.collector.records import find_number
from benchmarks.collector.relay import Relay
from benchmarks.collector.sender import Sender

REQUESTS_PER_S = 10
RECORDS = 100
PAGE = 5_000
QUIET_S = 90.0
"""Nothing more is expected to arrive after so long without a new document: both servers try again more often."""
DRAIN_S_MAX = 900.0
POLL_S = 3.0

DROPPED = re.compile(r"^.*\bDropping data\b.*$", re.MULTILINE)
REJECTED = re.compile(r"^.*\bRejecting data\b.*$", re.MULTILINE)


class Timing(NamedTuple):
    """The moments of a trial, in seconds from its beginning."""

    away: float
    killed: float
    back: float
    end: float


FULL = Timing(away=30, killed=60, back=90, end=120)
QUICK = Timing(away=5, killed=10, back=15, end=20)


class Server(Protocol):
    """A server that takes log records over OTLP."""

    @property
    def url(self) -> str:
        """The address that clients send to."""

    @property
    def log(self) -> str:
        """All that it has written since its first start."""

    def token(self) -> str:
        """Return what a client shows."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def kill(self) -> None:
        """End it at once."""


class Fate(NamedTuple):
    """The fate of the records that the client sent.

    Attributes:
        arrived: those of which OpenSearch has a document, acknowledged or not.
        lost: acknowledged, and not in OpenSearch.
        doubled: in OpenSearch more than once.
    """

    arrived: int
    lost: int
    doubled: int


class Result(NamedTuple):
    """The measurements of one trial.

    Attributes:
        sent: the records that the client had.
        acknowledged: those that the server said it had.
        refused: those that it refused for good.
        answers: requests by the status of their answer.
        drained_s: from the return of OpenSearch until the last document came.
        drop_lines: the number of lines in the server's log about data that it has dropped.
        drop_line: the first of them.
    """

    sent: int
    acknowledged: int
    refused: int
    fate: Fate
    answers: dict[str, int]
    drained_s: float
    drop_lines: int
    drop_line: str


async def run(server: Server, relay: Relay, opensearch_url: str, timing: Timing) -> Result:
    """Put a server, which is not running, to the trial; OpenSearch behind the relay must be empty."""
    await asyncio.to_thread(server.start)
    sender = Sender(server.url, server.token())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sender.send(timing.end, REQUESTS_PER_S, RECORDS))
        back_at = await _interfere(server, relay, timing)
    drained_at = await _wait_quiet(opensearch_url)
    copies = Counter([number async for number in _read_numbers(opensearch_url)])
    drops = find_drops(server.log)
    return Result(
        sent=sender.sent,
        acknowledged=len(sender.acknowledged),
        refused=sender.refused,
        fate=tally(sender.acknowledged, copies),
        answers=dict(sorted(sender.answers.items())),
        drained_s=max(0.0, drained_at - back_at),
        drop_lines=len(drops),
        drop_line=drops[0] if drops else "",
    )


def tally(acknowledged: set[int], copies: Counter[int]) -> Fate:
    """Compare the acknowledged records with the number of documents of each."""
    return Fate(
        arrived=len(copies),
        lost=len(acknowledged - copies.keys()),
        doubled=sum(count > 1 for count in copies.values()),
    )


def find_drops(log: str) -> list[str]:
    """Return the lines about batches that are not tried again, one for each batch.

    What an exporter rejects, the queue before it drops, and both tell it.
    """
    return DROPPED.findall(log) or REJECTED.findall(log)


async def _interfere(server: Server, relay: Relay, timing: Timing) -> float:
    """Take OpenSearch away, kill and start the server, give OpenSearch back; return the time of that."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    for at, act in (
        (timing.away, relay.refuse),
        (timing.killed, server.kill),
        (timing.killed, server.start),
        (timing.back, relay.accept),
    ):
        await asyncio.sleep(began_at + at - loop.time())
        await asyncio.to_thread(act)
    return time.monotonic()


async def _wait_quiet(url: str) -> float:
    """Wait until no document has come for a while; return the time of the last one."""
    found, last_at = -1, time.monotonic()
    give_up_at = last_at + DRAIN_S_MAX
    async with aiohttp.ClientSession() as session:
        while (now := time.monotonic()) < min(last_at + QUIET_S, give_up_at):
            await session.post(f"{url}/_refresh")
            async with session.get(f"{url}/_count") as response:
                count = int((await response.json())["count"])
            if count != found:
                found, last_at = count, now
            await asyncio.sleep(POLL_S)
    return last_at


async def _read_numbers(url: str) -> AsyncIterator[int]:
    """Yield the number of the record of every document in every index."""
    search = f"{url}/_search?scroll=1m&allow_partial_search_results=false"
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        answer = await _post(session, search, {"size": PAGE, "sort": ["_doc"]})
        while hits := answer["hits"]["hits"]:
            for hit in hits:
                number = find_number(json.dumps(hit["_source"]))
                if number is not None:
                    yield number
            answer = await _post(session, f"{url}/_search/scroll", {"scroll": "1m", "scroll_id": answer["_scroll_id"]})


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=body) as response:
        answer: dict[str, Any] = await response.json()
        return answer
