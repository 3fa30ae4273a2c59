"""OpenSearch, or a proxy before it, refuses events, and few of them or none are at fault."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

from chaos.comparison import read_dead
from chaos.load import make_plain
from chaos.rows import Backend, Row
from chaos.stage import Stage
from testbed.servers import misbehaviour
from testbed.servers.faulty_proxy import pass_on
from testbed.servers.opensearch_admin import MissingPipeline, put_template
from testbed.traffic.events import Event

HELD = "index_on_hold"
FORBIDDEN = "<script>"
FORBIDDEN_EVERY = 500
REQUEST_BYTES_MAX = 10_000
EVENT_BYTES_MAX = 8_000
"""The server's additions to an event fit between the two."""

ROUNDS = 12
"""More than the ten rounds of redelivery after which a refused event becomes a dead letter."""

QUICK = {"FOREBAY_RETRY_INTERVAL_S": "1"}
DEAD_POLL_S = 1.0

STRICT = {"mappings": {"dynamic": "strict", "properties": {"@timestamp": {"type": "date"}}}}
CORRECTED = {"mappings": {"dynamic": False}}


async def wait_buried(stage: Stage) -> None:
    """Let the clients go on with events that can be taken until every other one is a dead letter."""
    await stage.load.spare_sink()
    doomed = {log_id for log_id, event in stage.load.client.taken.items() if event.doomed}
    while not doomed <= await asyncio.to_thread(read_dead, stage.server):
        await asyncio.sleep(DEAD_POLL_S)


async def forbid_some(stage: Stage) -> None:
    """Refuse every bulk that holds a certain event, from the beginning."""
    behaviour = misbehaviour.refuse_bulks_with(FORBIDDEN.encode(), 403, "html")
    await asyncio.to_thread(stage.proxy.behave, behaviour)


async def deliver_others(stage: Stage) -> None:
    """See that the others arrive while such events come in, and wait until these are dead letters."""
    began_at = time.monotonic()
    await stage.wait_delivered()
    stage.notes.append(f"events accepted until then were delivered {time.monotonic() - began_at:.1f} s later")
    await wait_buried(stage)
    stage.notes.append(f"{stage.proxy.interfered:,} requests were refused")


def make_forbidden(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event; one in five hundred is of the kind that a firewall dislikes."""
    event = make_plain(number, with_id)
    return event | {"label": FORBIDDEN} if number % FORBIDDEN_EVERY == FORBIDDEN_EVERY // 2 else event


async def forbid_all(stage: Stage) -> None:
    """Refuse everything for a while."""
    await asyncio.to_thread(stage.proxy.behave, misbehaviour.show_page(403))
    await stage.wait_unwell()
    await _outlast(stage)
    await asyncio.to_thread(stage.proxy.behave, pass_on)


async def plant_strict_template(stage: Stage) -> None:
    """Let the index that the first event makes be one that takes none."""
    await put_template(stage.opensearch_url, stage.environment, STRICT)


async def correct_template(stage: Stage) -> None:
    """Correct the template after a while, and delete the index."""
    await stage.wait_logged(HELD)
    await _outlast(stage)
    stage.require(not await stage.index.count(), "the index has taken an event")
    await put_template(stage.opensearch_url, stage.environment, CORRECTED)
    await stage.index.remove()


async def fail_pipeline(stage: Stage) -> None:
    """Refuse every event as an ingest pipeline that fails does, for a while."""
    await stage.wait_indexed()
    await asyncio.to_thread(stage.proxy.behave, misbehaviour.fail_pipeline())
    await stage.wait_logged(HELD)
    await _outlast(stage)
    await asyncio.to_thread(stage.proxy.behave, pass_on)


async def miss_pipeline(stage: Stage) -> None:
    """Let the index name an ingest pipeline that is missing, and put it in place after a while."""
    await stage.wait_indexed()
    async with MissingPipeline(stage.opensearch_url, stage.environment):
        await stage.wait_logged(HELD)
        await _outlast(stage)


async def _outlast(stage: Stage) -> None:
    """Wait for more rounds than a refused event gets before it becomes a dead letter."""
    await asyncio.sleep(ROUNDS * float(stage.server.settings["FOREBAY_RETRY_INTERVAL_S"]))


async def limit_requests(stage: Stage) -> None:
    """Take no large request, from the beginning."""
    behaviour = misbehaviour.refuse_larger_than(REQUEST_BYTES_MAX)
    await asyncio.to_thread(stage.proxy.behave, behaviour)


async def send_small(stage: Stage) -> None:
    """Let the load go on, and see that it arrives in requests that are small enough."""
    await asyncio.sleep(stage.scale.fault_s)
    await stage.wait_delivered()
    stage.require(stage.proxy.interfered > 0, "no request was too large")
    stage.notes.append(f"{stage.proxy.interfered:,} requests were too large")


def make_small(number: int, with_id: bool) -> Event:  # noqa: FBT001 - the form of an `EventMaker`
    """Make an event that fits into a request alone."""
    event = make_plain(number, with_id)
    if len(json.dumps(event)) > EVENT_BYTES_MAX:
        del event["param"]
    return event


ROWS: Sequence[Row] = (
    Row(
        "firewall",
        "403 with a page of HTML to every bulk that holds one of certain events",
        deliver_others,
        backend=Backend.PROXY,
        set_up=forbid_some,
        make=make_forbidden,
        doomed=lambda event: event.get("label") == FORBIDDEN,
        settings=QUICK,
        prose="""\
As a web firewall does. The page does not say which event it is: a bulk that is refused as a whole goes in parts, and
all others of it arrive. A status like 403 may pass, so the certain events die only after they were refused in ten
rounds of redelivery while others were taken. For shorter rounds, `FOREBAY_RETRY_INTERVAL_S=1` in this row and the
four below it.""",
    ),
    Row(
        "firewall-all",
        "403 with a page of HTML to everything, for longer than ten rounds of redelivery",
        forbid_all,
        backend=Backend.PROXY,
        settings=QUICK,
    ),
    Row(
        "strict-template",
        "somebody else's index template (`dynamic: strict`) when the index is made; it is corrected, the index deleted",
        correct_template,
        set_up=plant_strict_template,
        settings=QUICK,
        short_acks=(),
        prose="""\
OpenSearch says 400 of each event, as it does of one that is at fault itself. But it takes none of the index, so none is
known to be, and all of them wait.""",
    ),
    Row(
        "pipeline-fails",
        "an ingest pipeline of the index fails for all events; then it is corrected (by a proxy)",
        fail_pipeline,
        backend=Backend.PROXY,
        settings=QUICK,
    ),
    Row(
        "pipeline-missing",
        "the ingest pipeline that the index names is missing; then it is put in place",
        miss_pipeline,
        settings=QUICK,
        short_acks=(),
    ),
    Row(
        "too-large",
        "413 to every request of more than 10 kB, all the time",
        send_small,
        backend=Backend.PROXY,
        set_up=limit_requests,
        make=make_small,
        short_acks=(),
        prose="The size that passes is learnt, and bulks go in requests of that size.",
    ),
)
