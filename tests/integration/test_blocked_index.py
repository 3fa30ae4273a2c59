"""An index that a real OpenSearch blocks waits, its neighbours flow, and everything arrives once it is free again."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Raw

from forebay.document import Document, EventInfo, encode_entry
from forebay.model import Ack, Address, Entry, Outcome, entry_address
from forebay.pipeline.gate import Health
from forebay.pipeline.holds import FRESH_TRIALS_MAX
from forebay.pipeline.pipeline import Pipeline
from forebay.setting_values import SinkHost
from forebay.settings import Settings
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.telemetry.counters import Counters
from testbed.servers.fixtures import OpenSearchAddress
from unit.pipeline.fakes import Inbox, open_spool, read_rows, until

EVENTS = 40


class CountingSink(OpenSearchSink):
    """The sink, with a count of the requests that hold events of each index."""

    asked: dict[str, int]

    async def deliver(self, entries: list[Entry]) -> Sequence[Outcome]:
        for index in {entry_address(entry).index for entry in entries}:
            self.asked[index] = self.asked.get(index, 0) + 1
        return await super().deliver(entries)


def make_entries(index: str, prefix: str) -> list[Entry]:
    now = datetime.now(UTC)
    info = EventInfo(page="/home", event="click", param=Raw(b"{}"))
    return [
        encode_entry(
            Address(index, f"{prefix}{number}"),
            Document(timestamp=now, received_at=now, log_id=f"{prefix}{number}", user_id="user", event_info=info),
        )
        for number in range(EVENTS)
    ]


async def ask(method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body) as response:
        answer = await response.json()
        assert response.status < 300, answer
        return answer


async def count(url: str, index: str) -> int:
    await ask("POST", f"{url}/{index}/_refresh")
    return int((await ask("GET", f"{url}/{index}/_count"))["count"])


async def test_a_month_that_is_blocked_waits_while_another_flows_and_arrives_once_it_is_free(
    opensearch: OpenSearchAddress, tmp_path: Path
) -> None:
    name = f"events_blocked-{uuid.uuid4().hex[:8]}"
    october, november = f"{name}_2026-10", f"{name}_2026-11"
    settings = Settings(
        OPEN_SEARCH_DNS=(SinkHost(opensearch.url),),
        bulk_interval_s=0.05,
        retry_interval_s=0.5,
        retry_delay_s_min=0.2,
        retry_delay_s_max=0.4,
    )
    sink = CountingSink(settings)
    sink.asked = {}
    async with open_spool(tmp_path / "spool.db") as spool:
        pipeline = Pipeline(spool, sink, settings, Counters())
        running = asyncio.create_task(pipeline.run())

        async def send(index: str, prefix: str) -> None:
            inbox = Inbox(make_entries(index, prefix))
            pipeline.admitter.admit(inbox, Ack.DISK)
            await until(lambda: inbox.heard)

        await send(october, "before")
        await until(lambda: pipeline.state.stored_events == 0)
        await ask("PUT", f"{opensearch.url}/{october}/_settings", {"index.blocks.write": True})

        began_at = asyncio.get_running_loop().time()
        asked = sink.asked[october]
        for number in range(20):
            await send(october, f"late{number}-")
            await send(november, f"new{number}-")
            await asyncio.sleep(0.05)
        await until(lambda: pipeline.state.stored_events == 20 * EVENTS)

        state = pipeline.state
        assert state.sink_health is Health.GOOD
        assert [(hold.index_name, hold.error_type) for hold in state.holds] == [(october, "cluster_block_exception")]
        assert await count(opensearch.url, november) == 20 * EVENTS
        back_offs = (asyncio.get_running_loop().time() - began_at) / 0.1
        assert sink.asked[october] - asked <= back_offs + 2 + FRESH_TRIALS_MAX

        await ask("PUT", f"{opensearch.url}/{october}/_settings", {"index.blocks.write": None})
        await until(lambda: pipeline.state.stored_events == 0)
        assert await count(opensearch.url, october) == 21 * EVENTS
        assert pipeline.state.holds == ()
        await pipeline.stop(running, 5)
        await sink.close()
    assert read_rows(tmp_path / "spool.db", "SELECT * FROM dead_letters") == []
