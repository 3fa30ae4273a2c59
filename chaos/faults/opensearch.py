"""A real OpenSearch that is killed, frozen, overloaded, blocked, or does not like some events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from chaos.faults.network import TIMED_OUT
from chaos.faults.refusals import wait_buried
from chaos.load import make_plain
from chaos.rows import Backend, Loss, Row
from chaos.stage import Stage
from testbed.servers.opensearch_admin import call, put_template
from testbed.traffic.events import Event

TINY_PRESSURE = {"indexing_pressure.memory.limit": "512b"}
BLOCK = "index.blocks.read_only_allow_delete"
CLASH_EVERY = 100
FLAT = {"type": "flat_object"}


async def kill(stage: Stage) -> None:
    """Kill OpenSearch and start it again."""
    await asyncio.to_thread(stage.opensearch.kill)
    await stage.wait_unwell()
    await asyncio.sleep(stage.scale.fault_s)
    await _start(stage, {})


async def freeze(stage: Stage) -> None:
    """Stop OpenSearch without closing its connections, and let it go on."""
    await asyncio.to_thread(stage.opensearch.pause)
    await asyncio.sleep(stage.scale.freeze_s)
    await asyncio.to_thread(stage.opensearch.resume)


async def freeze_beyond_timeout(stage: Stage) -> None:
    """Freeze OpenSearch for longer than the server waits for a bulk."""
    await freeze(stage)
    await stage.wait_logged(TIMED_OUT)


async def freeze_within_timeout(stage: Stage) -> None:
    """Freeze OpenSearch for less than the server waits for a bulk."""
    await freeze(stage)
    stage.require("sink_unwell" not in stage.server.log, "the time-out was not long enough for this row")


async def press(stage: Stage) -> None:
    """Let OpenSearch have hardly any memory for indexing: it answers 429 to whole bulks. Then give it back."""
    await stage.wait_cause("rejected_execution_exception")
    await asyncio.sleep(stage.scale.fault_s)
    await _restart(stage, {})


async def take_indexing_memory(stage: Stage) -> None:
    """Start OpenSearch with hardly any memory for indexing, before the clients begin."""
    await _restart(stage, TINY_PRESSURE)


async def block(stage: Stage) -> None:
    """Make the indices read-only, as OpenSearch itself does when its disk is nearly full, and lift that again."""
    await stage.wait_indexed()
    await _set_block(stage, value=True)
    await stage.wait_logged("cluster_block_exception")
    await asyncio.sleep(stage.scale.fault_s)
    await _set_block(stage, value=None)


async def lose_data(stage: Stage) -> None:
    """Stop OpenSearch, take all its data away, and start it again; then see that new events get our mapping."""
    await stage.wait_indexed()
    await asyncio.to_thread(stage.opensearch.stop)
    stage.damaged_at = time.monotonic()
    await stage.wait_unwell()
    stage.at_risk = (await stage.metrics()).delivered
    await asyncio.to_thread(stage.opensearch.lose_data)
    await _start(stage, {})
    await stage.load.wait_accepted(stage.scale.events_before)
    await stage.wait_indexed()
    for index, found in (await call(stage.opensearch_url, "GET", f"/events_{stage.environment}_*/_mapping")).items():
        mapping = found["mappings"]["properties"]["event_info"]["properties"]["param"]
        stage.expect(mapping == FLAT, f"{index} has another mapping than ours: {mapping}")


async def map_label_as_number(stage: Stage) -> None:
    """Give the indices of this run a mapping that some of the events do not fit."""
    properties = {"event_info": {"properties": {"label": {"type": "long"}}}}
    mappings = {"dynamic": False, "properties": properties}
    await put_template(stage.opensearch_url, stage.environment, {"mappings": mappings})


async def send_clashing(stage: Stage) -> None:
    """Let the load go on, with the events among it that do not fit, until all of these are dead letters."""
    await stage.wait_logged("dead_letters")
    await asyncio.sleep(stage.scale.fault_s)
    await wait_buried(stage)


def make_clashing(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event; each hundredth has a label that is no number."""
    event = make_plain(number, with_id)
    event.pop("label", None)
    if number % CLASH_EVERY == 0:
        event["label"] = "not a number"
    return event


async def _restart(stage: Stage, settings: dict[str, str]) -> None:
    await asyncio.to_thread(stage.opensearch.kill)
    await _start(stage, settings)


async def _start(stage: Stage, settings: dict[str, str]) -> None:
    # A busy machine takes minutes for this, and more events meanwhile show nothing new.
    await stage.load.pause()
    await asyncio.to_thread(stage.opensearch.start, settings)
    stage.load.resume()


async def _set_block(stage: Stage, *, value: bool | None) -> None:
    await call(stage.opensearch_url, "PUT", f"/events_{stage.environment}_*/_settings", {BLOCK: value})


ROWS: Sequence[Row] = (
    Row(
        "opensearch-killed",
        "OpenSearch killed (`kill -9`), started again",
        kill,
        backend=Backend.OWN,
    ),
    Row(
        "freeze-timeout-shorter",
        "OpenSearch frozen (SIGSTOP), bulk time-out shorter than that",
        freeze_beyond_timeout,
        backend=Backend.OWN,
        settings={"FOREBAY_BULK_TIMEOUT_S": "2"},
        prose="""\
The bulks that were sent before the time-out wait in the kernel's buffers, and OpenSearch carries them out when it goes
on, while the server has put their events back. They are sent again with the same `_id`s and answered with 409.""",
    ),
    Row(
        "freeze-timeout-longer",
        "OpenSearch frozen (SIGSTOP), bulk time-out longer than that",
        freeze_within_timeout,
        backend=Backend.OWN,
        settings={"FOREBAY_BULK_TIMEOUT_S": "60"},
    ),
    Row(
        "pressure",
        "OpenSearch answers 429 to whole bulks (a tiny `indexing_pressure.memory.limit`)",
        press,
        backend=Backend.OWN,
        set_up=take_indexing_memory,
    ),
    Row(
        "data-lost",
        "OpenSearch stopped, emptied, started again",
        lose_data,
        backend=Backend.OWN,
        loss=Loss.DELIVERED,
        prose="""\
The events that OpenSearch had taken are gone with its data and count as lost here, but no others: those that waited
meanwhile, and those that are accepted afterwards, all arrive. The server puts its index template in place again before
an event makes an index without it; the run checks that the new index has its mapping.""",
    ),
    Row("read-only", "index made read-only (`read_only_allow_delete`), then released", block),
    Row(
        "mapping-clash",
        "mapping clash on 1 % of the events",
        send_clashing,
        set_up=map_label_as_number,
        make=make_clashing,
        doomed=lambda event: "label" in event,
        prose="""\
OpenSearch refuses exactly the events that do not fit, and exactly those are dead letters, with its reason. They count
neither as lost nor as being in OpenSearch. That it takes others of their index is the evidence against them, so the
clients go on with events that fit until the last of them is a dead letter.""",
    ),
)
