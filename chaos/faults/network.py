"""The network between the server and OpenSearch fails, or something else answers in OpenSearch's place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from chaos.load import make_plain
from chaos.rows import Backend, Row
from chaos.stage import Stage
from testbed.servers import misbehaviour
from testbed.servers.faulty_proxy import Behaviour
from testbed.traffic.events import Event

TIMED_OUT = "no answer in time"
POISON = "/poison"
POISONED_NUMBER = 250


async def refuse(stage: Stage) -> None:
    """Take no connections for a while."""
    await asyncio.to_thread(stage.proxy.refuse)
    await stage.wait_unwell()
    await asyncio.sleep(stage.scale.fault_s)
    await asyncio.to_thread(stage.proxy.accept)


def misbehave(behaviour: Behaviour, logged: str = "") -> Callable[[Stage], Awaitable[None]]:
    """Make a fault that is one behaviour of the proxy for a while, at which the server logs a text."""

    async def fault(stage: Stage) -> None:
        await stage.misbehave(behaviour, logged)

    return fault


async def slow_down(stage: Stage) -> None:
    """Let every answer take long."""
    await stage.misbehave(misbehaviour.be_slow(stage.scale.latency_s))


async def plant_poison(stage: Stage) -> None:
    """Cut every connection over which the poisonous event is sent, from the beginning."""
    await asyncio.to_thread(stage.proxy.behave, misbehaviour.reset_on(POISON.encode()))


async def wait_neighbours(stage: Stage) -> None:
    """Wait until the poisonous event is found out; it is never let pass."""
    began_at = time.monotonic()
    await stage.wait_logged("event_is_poison")
    stage.notes.append(f"found out after {time.monotonic() - began_at:.1f} s and {stage.proxy.interfered} resets")


def make_poisonous(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event; one of them is poisonous."""
    event = make_plain(number, with_id or number == POISONED_NUMBER)
    return event | {"page": POISON} if number == POISONED_NUMBER else event


ROWS: Sequence[Row] = (
    Row("refused", "connections refused", refuse, backend=Backend.PROXY, short_acks=("disk", "memory")),
    Row(
        "reset-before", "connection reset before an answer", misbehave(misbehaviour.reset_before), backend=Backend.PROXY
    ),
    Row(
        "reset-in-answer",
        "connection reset in the middle of the answer; OpenSearch has taken the bulk",
        misbehave(misbehaviour.reset_in_answer),
        backend=Backend.PROXY,
    ),
    Row(
        "unanswered",
        "time-out after OpenSearch has taken the bulk",
        misbehave(misbehaviour.hang_after, TIMED_OUT),
        backend=Backend.PROXY,
        settings={"FOREBAY_BULK_TIMEOUT_S": "1"},
    ),
    Row("429-whole", "429 to whole bulks (by a proxy)", misbehave(misbehaviour.refuse_all(429)), backend=Backend.PROXY),
    Row(
        "429-items",
        "429 to a third of the events of each bulk",
        misbehave(misbehaviour.refuse_items(1 / 3)),
        backend=Backend.PROXY,
    ),
    Row("503", "503 to whole bulks", misbehave(misbehaviour.refuse_all(503)), backend=Backend.PROXY),
    Row("html", "200 with a page of HTML", misbehave(misbehaviour.show_page(200)), backend=Backend.PROXY),
    Row(
        "cut-off",
        "200 with an answer that is cut off; OpenSearch has taken the bulk",
        misbehave(misbehaviour.cut_json),
        backend=Backend.PROXY,
    ),
    Row(
        "fewer-items",
        "200 with fewer items than events; OpenSearch has taken the bulk",
        misbehave(misbehaviour.drop_items),
        backend=Backend.PROXY,
    ),
    Row("slow", "OpenSearch slow", slow_down, backend=Backend.PROXY),
    Row(
        "poison",
        "one event on which the connection is reset, whichever bulk it is in",
        wait_neighbours,
        backend=Backend.PROXY,
        set_up=plant_poison,
        make=make_poisonous,
        doomed=lambda event: event["page"] == POISON,
        prose="""\
No answer says which event it is. Groups that fail while others are taken are delivered alone and halved, until one
event is left, which becomes a dead letter (`poison`). The connection is reset to the end: the server has recovered
here, not the network.""",
    ),
)
