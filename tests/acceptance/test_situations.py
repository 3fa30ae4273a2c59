"""Situations in which events are refused: only events at fault become dead letters, and the others flow.

In each the server is killed in the middle, in some also not. The bad ones end as dead letters with OpenSearch's words.
"""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from testbed.servers import misbehaviour
from testbed.servers.faulty_proxy import FaultyProxy, pass_on
from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer
from testbed.servers.opensearch_admin import Template, call, put_template
from testbed.traffic.client import Client
from testbed.traffic.index import Index

PATIENCE_S = 90.0
GOING_ON_S = 30.0
"""For others that go on while some are refused: many back-offs, and long before those are settled by themselves."""
ROUNDS_MAX = 20
"""For events that die at their second refusal while others are taken."""
QUICK = {
    "FOREBAY_BULK_INTERVAL_S": "0.1",
    "FOREBAY_RETRY_DELAY_S_MIN": "0.05",
    "FOREBAY_RETRY_DELAY_S_MAX": "0.5",
    "FOREBAY_RETRY_INTERVAL_S": "1",
}
# A target that is no number is refused, as by any mapping that a client does not keep to.
NUMBERS = {
    "mappings": {
        "dynamic": False,
        "properties": {"@timestamp": {"type": "date"}, "event_info": {"properties": {"target": {"type": "integer"}}}},
    }
}
STRICT = {"mappings": {"dynamic": "strict", "properties": {"@timestamp": {"type": "date"}}}}

Event = dict[str, Any]
numbers = itertools.count()
environments = (f"situation{number}" for number in itertools.count())


def good(count: int, **fields: Any) -> list[Event]:
    return [
        {"page": "/", "event": "e", "log_id": f"good-{next(numbers)}", "target": "7", **fields} for _ in range(count)
    ]


def bad(count: int, **fields: Any) -> list[Event]:
    return [
        {"page": "/", "event": "e", "log_id": f"bad-{next(numbers)}", "target": "seven", **fields} for _ in range(count)
    ]


class Stage:
    """A Forebay before an OpenSearch, with something between them that a test makes misbehave."""

    def __init__(self, server: ForebayServer, proxy: FaultyProxy, url: str, environment: str) -> None:
        self.server = server
        self.proxy = proxy
        self.url = url
        self.environment = environment
        self.index = Index(url, environment)
        self.client = Client(server.url, server.token())

    async def send(self, events: Sequence[Event], *, batch: int = 50, connections: int = 4) -> None:
        await self.client.send(events, batch=batch, connections=connections)

    async def kill(self) -> None:
        """End the server as a crash would, and start it again."""
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.start)

    async def health(self) -> tuple[int, list[str]]:
        headers = {"Authorization": f"Bearer {self.server.token(scope='events:read')}"}
        url = f"{self.server.url}/health/ready"
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
            return response.status, (await response.json()).get("causes", [])

    def read_dead(self) -> dict[str, tuple[str, str]]:
        with closing(sqlite3.connect(self.server.folder / "spool.db")) as connection:
            rows = connection.execute("SELECT log_id, error_type, reason FROM dead_letters").fetchall()
        return {log_id: (error_type, reason) for log_id, error_type, reason in rows}

    def count_pending(self) -> int:
        with closing(sqlite3.connect(self.server.folder / "spool.db")) as connection:
            (events,) = connection.execute("SELECT events FROM totals").fetchone()
        return int(events)

    async def wait(self, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            assert time.monotonic() < deadline, self.server.log[-6000:]
            await asyncio.sleep(0.1)

    async def wait_delivered(self, count: int, patience_s: float = PATIENCE_S) -> None:
        async def is_delivered() -> bool:
            return await self.index.count() >= count

        await self.wait(is_delivered, patience_s)

    async def send_good_until_dead(self, dead: Iterable[Event], count: int, **fields: Any) -> None:
        """Send so many good events each round of redelivery, until those at fault are dead letters.

        An event dies on evidence only, good ones that are sent after its refusal before: how many rounds that takes
        depends on the moment at which each comes, but it is never many.
        """
        dead_ids = {event["log_id"] for event in dead}
        for _ in range(ROUNDS_MAX):
            if self.read_dead().keys() >= dead_ids:
                return
            await self.send(good(count, **fields))
            await asyncio.sleep(float(QUICK["FOREBAY_RETRY_INTERVAL_S"]))
        raise AssertionError(self.server.log[-6000:])

    async def stored(self) -> set[str]:
        return {log_id async for log_id, _ in self.index.documents()}

    async def end(self, *, dead: Iterable[Event] = ()) -> None:
        """Wait until every event is in OpenSearch or a dead letter, and nothing waits; check
        that each is in its right place, once."""
        dead_ids = {event["log_id"] for event in dead}
        good_ids = self.client.accepted.keys() - dead_ids
        await self.wait(lambda: self.read_dead().keys() >= dead_ids)
        await self.wait_delivered(len(good_ids))
        await self.wait(lambda: self.count_pending() == 0)
        assert self.read_dead().keys() == dead_ids
        assert await self.stored() == good_ids
        assert await self.index.count() == len(good_ids)


async def go_on(_: Stage) -> None:
    """Do nothing."""


@pytest.fixture
def middle(request: pytest.FixtureRequest) -> Callable[[Stage], Any]:
    """Return the interruption in the middle: a kill of the server, or none as well in some tests."""
    return getattr(request, "param", Stage.kill)


both = pytest.mark.parametrize("middle", [Stage.kill, go_on], ids=["killed in the middle", "as it goes"], indirect=True)


Staging = Callable[..., Any]


@pytest.fixture
def staged(opensearch: OpenSearchAddress, tmp_path: Path) -> Staging:
    @asynccontextmanager
    async def stage(template: dict[str, Any] | None = None, **settings: str) -> AsyncIterator[Stage]:
        environment = next(environments)
        async with AsyncExitStack() as stack:
            if template is not None:
                await stack.enter_async_context(Template(opensearch.url, environment, template))
            proxy = stack.enter_context(FaultyProxy(opensearch.url))
            where = {"OPEN_SEARCH_DNS": proxy.url, "SERVER_ENVIRONMENT": environment}
            server = stack.enter_context(ForebayServer(tmp_path, {**QUICK, **where, **settings}))
            await asyncio.to_thread(server.start)
            stage = Stage(server, proxy, opensearch.url, environment)
            stack.push_async_callback(stage.index.remove)
            yield stage
            assert await asyncio.to_thread(server.stop) == 0

    return stage


@both
async def test_one_bad_event_and_no_other_waits_and_dies_when_good_ones_are_taken(
    staged: Staging, middle: Callable[[Stage], Any]
) -> None:
    events = bad(1)
    async with staged(NUMBERS) as stage:
        await stage.send(events)
        await asyncio.sleep(4)  # several rounds
        await middle(stage)
        assert stage.read_dead() == {}
        assert stage.count_pending() == 1
        assert (await stage.health()) == (200, []), "one event alone worries nobody"
        await stage.send(good(1))
        await stage.wait_delivered(1, GOING_ON_S)
        await stage.send_good_until_dead(events, 1)
        await stage.end(dead=events)
        ((error_type, reason),) = stage.read_dead().values()
        assert error_type == "mapper_parsing_exception"
        assert "seven" in reason


async def test_ten_bad_events_and_no_other_are_told(staged: Staging, middle: Callable[[Stage], Any]) -> None:
    events = bad(12)
    async with staged(NUMBERS) as stage:
        await stage.send(events)

        async def is_told() -> bool:
            status, causes = await stage.health()
            return status == 200 and len(causes) == 1 and "mapper_parsing_exception" in causes[0]

        await stage.wait(is_told, GOING_ON_S)
        await middle(stage)
        await stage.wait(is_told, GOING_ON_S)
        assert stage.read_dead() == {}
        await stage.send_good_until_dead(events, 3)
        await stage.end(dead=events)
        assert (await stage.health()) == (200, [])


@both
async def test_one_event_in_a_hundred_is_bad(staged: Staging, middle: Callable[[Stage], Any]) -> None:
    events = bad(200)
    async with staged(NUMBERS) as stage:
        for number in range(20):
            await stage.send([*good(990), *events[10 * number : 10 * number + 10]], batch=100)
            if number == 10:
                await middle(stage)
        await stage.wait_delivered(15_000)
        await stage.send_good_until_dead(events, 10)
        await stage.end(dead=events)


async def test_all_events_of_one_client_are_bad(staged: Staging, middle: Callable[[Stage], Any]) -> None:
    events = bad(4000)
    async with staged(NUMBERS) as stage:
        for number in range(20):
            await stage.send(events[200 * number : 200 * number + 200], batch=200)
            await stage.send(good(100), batch=10)
            await stage.wait_delivered(100 * number + 100, GOING_ON_S)
            if number == 10:
                await middle(stage)
        await stage.send_good_until_dead(events, 10)
        await stage.end(dead=events)


async def test_a_flood_of_bad_events_with_one_good_in_a_thousand(
    staged: Staging, middle: Callable[[Stage], Any]
) -> None:
    events = bad(19_980)
    async with staged(NUMBERS) as stage:
        for number in range(20):
            await stage.send([*events[999 * number : 999 * number + 999], *good(1)], batch=250)
            if number == 10:
                await middle(stage)
        await stage.wait_delivered(20)
        await stage.send_good_until_dead(events, 10)
        await stage.end(dead=events)


@both
@pytest.mark.parametrize(
    "reason", ["Number of documents in the index can't exceed [2147483519]", "the quota of this index is used up"]
)
async def test_an_index_fills_in_the_middle_of_a_bulk(
    staged: Staging, middle: Callable[[Stage], Any], reason: str
) -> None:
    async with staged() as stage:
        await stage.send(good(100))
        await stage.wait_delivered(100)
        stage.proxy.behave(misbehaviour.fill_up(300, "illegal_argument_exception", reason))
        await stage.send(good(3000), batch=1000)
        await stage.wait_delivered(400)
        await asyncio.sleep(4)  # several rounds
        await middle(stage)
        await asyncio.sleep(2)
        assert stage.read_dead() == {}
        status, causes = await stage.health()
        assert status == 200
        assert any(reason in cause for cause in causes)
        stage.proxy.behave(pass_on)
        await stage.end()


@pytest.mark.parametrize("kind", ["html", "json"])
async def test_a_firewall_refuses_every_bulk_with_one_certain_event(
    staged: Staging, middle: Callable[[Stage], Any], kind: str
) -> None:
    events = bad(1, label="<script>")
    async with staged() as stage:
        stage.proxy.behave(misbehaviour.refuse_bulks_with(b"<script>", 403, kind))
        await stage.send([*good(20), *events, *good(20)])
        await stage.wait_delivered(40, GOING_ON_S)
        sent = 40
        while not stage.read_dead():
            assert (await stage.health())[0] == 200
            await stage.send(good(1))
            sent += 1
            await stage.wait_delivered(sent - 20, GOING_ON_S)
            assert sent < 400, stage.server.log[-6000:]
            await asyncio.sleep(0.2)
            if sent == 60:
                await middle(stage)
        await stage.end(dead=events)
        ((error_type, _),) = stage.read_dead().values()
        assert error_type == {"html": "http_403", "json": "security_exception"}[kind]


@both
async def test_the_firewall_meets_the_certain_event_first_and_alone(
    staged: Staging, middle: Callable[[Stage], Any]
) -> None:
    events = bad(1, label="<script>")
    async with staged() as stage:
        stage.proxy.behave(misbehaviour.refuse_bulks_with(b"<script>", 403, "html"))
        await stage.send(events)
        await asyncio.sleep(2)
        await middle(stage)
        await stage.send(good(20))
        await stage.wait_delivered(20, GOING_ON_S)

        async def is_well() -> bool:
            status, causes = await stage.health()
            return status == 200 and not causes

        await stage.wait(is_well)
        # It is refused in each round, and no good event comes any more.
        for _ in range(20):
            await asyncio.sleep(0.25)
            assert await is_well(), stage.server.log[-6000:]
        while not stage.read_dead():
            await stage.send(good(1))
            await asyncio.sleep(0.5)
        await stage.end(dead=events)


@pytest.mark.parametrize("status", [400, 401, 403, 413, 451])
async def test_a_proxy_before_opensearch_refuses_everything_for_a_while(staged: Staging, status: int) -> None:
    async with staged() as stage:
        await stage.send(good(100))
        await stage.wait_delivered(100)
        stage.proxy.behave(misbehaviour.refuse_bulks_with(b"", status, "html"))
        await stage.send(good(500))
        await asyncio.sleep(4)
        answered, causes = await stage.health()
        assert answered == 200
        assert any(f"http_{status}" in cause for cause in causes)
        await stage.kill()
        await asyncio.sleep(3)
        assert stage.read_dead() == {}
        stage.proxy.behave(pass_on)
        await stage.end()


@both
async def test_a_proxy_takes_no_more_than_10_kb(staged: Staging, middle: Callable[[Stage], Any]) -> None:
    large = bad(1, target="7", label="x" * 12_000)
    async with staged() as stage:
        stage.proxy.behave(misbehaviour.refuse_larger_than(10_000))
        await stage.send([*good(500), *large, *good(500)], batch=200)
        await stage.wait_delivered(1000)
        await middle(stage)
        await stage.send(good(500), batch=100)
        await stage.wait_delivered(1500)
        before = stage.proxy.interfered
        await stage.send(good(2000), batch=200)
        await stage.wait_delivered(3500)
        assert stage.proxy.interfered - before < 60, "the size that passes is remembered"
        await stage.send_good_until_dead(large, 1)
        await stage.end(dead=large)


async def test_a_template_of_somebody_elses_is_strict_and_then_corrected(
    staged: Staging, middle: Callable[[Stage], Any]
) -> None:
    async with staged(STRICT) as stage:
        await stage.send(good(3000))

        async def is_told() -> bool:
            status, causes = await stage.health()
            return status == 200 and any("strict_dynamic_mapping_exception" in cause for cause in causes)

        await stage.wait(is_told)
        await middle(stage)
        await asyncio.sleep(4)
        assert stage.read_dead() == {}
        assert stage.count_pending() == 3000
        await put_template(stage.url, stage.environment, {"mappings": {"dynamic": False}})
        await stage.index.remove()
        await stage.end()


async def test_a_third_of_all_items_is_too_much_for_a_while(staged: Staging, middle: Callable[[Stage], Any]) -> None:
    async with staged() as stage:
        stage.proxy.behave(misbehaviour.refuse_items(1 / 3))
        for _ in range(5):
            await stage.send(good(1000), batch=100)
        await middle(stage)
        assert stage.read_dead() == {}
        await asyncio.sleep(3)
        stage.proxy.behave(pass_on)
        await stage.end()


async def test_one_shard_of_several_is_red(staged: Staging, middle: Callable[[Stage], Any]) -> None:
    async with staged() as stage:
        stage.proxy.behave(
            misbehaviour.refuse_items_with(
                lambda entry: b"0" in entry.split(b"\n")[0][-8:], 503, misbehaviour.UNASSIGNED
            )
        )
        events = good(3000)
        await stage.send(events, batch=100)
        await middle(stage)
        await asyncio.sleep(4)
        assert stage.read_dead() == {}
        well = sum("0" not in event["log_id"][-4:] for event in events)
        await stage.wait_delivered(well // 2)
        stage.proxy.behave(pass_on)
        await stage.end()


async def test_the_only_index_is_refused_and_the_sink_is_not_well_at_once(staged: Staging) -> None:
    async with staged() as stage:
        stage.proxy.behave(
            misbehaviour.refuse_by_turns((400, misbehaviour.BROKEN_PIPELINE), (503, misbehaviour.UNASSIGNED))
        )
        await stage.send(good(50))
        await asyncio.sleep(4)
        assert stage.read_dead() == {}
        stage.proxy.behave(pass_on)
        # Nothing but the events on hold can find out that the sink is back.
        await stage.wait_delivered(50, GOING_ON_S)
        await stage.end()
        assert await stage.health() == (200, [])


async def test_a_pipeline_fails_for_one_event(staged: Staging, middle: Callable[[Stage], Any]) -> None:
    events = bad(1)
    async with staged() as stage:
        stage.proxy.behave(
            misbehaviour.refuse_items_with(lambda entry: b"seven" in entry, 500, misbehaviour.BROKEN_PIPELINE)
        )
        await stage.send([*good(10), *events])
        sent = 10
        while not stage.read_dead():
            assert (await stage.health()) == (200, [])
            await stage.send(good(1))
            sent += 1
            assert sent < 400, stage.server.log[-6000:]
            await asyncio.sleep(0.3)
            if sent == 30:
                await middle(stage)
        await stage.end(dead=events)
        assert stage.read_dead() == {events[0]["log_id"]: ("fail_processor_exception", "broken in the pipeline")}


async def test_a_pipeline_fails_for_all_and_is_corrected(staged: Staging, middle: Callable[[Stage], Any]) -> None:
    async with staged() as stage:
        stage.proxy.behave(misbehaviour.fail_pipeline())
        await stage.send(good(1000))
        await asyncio.sleep(5)
        await middle(stage)
        await asyncio.sleep(3)
        assert stage.read_dead() == {}
        status, causes = await stage.health()
        assert status == 200
        assert any("broken in the pipeline" in cause for cause in causes)
        stage.proxy.behave(pass_on)
        await stage.end()


async def test_an_operators_block_is_lifted_with_many_events_pending(
    staged: Staging, middle: Callable[[Stage], Any]
) -> None:
    async with staged() as stage:
        await stage.send(good(10))
        await stage.wait_delivered(10)
        await call(stage.url, "PUT", f"/events_{stage.environment}_*/_settings", {"index.blocks.write": True})
        for _ in range(20):
            await stage.send(good(1000), batch=100, connections=8)
        await asyncio.sleep(2)
        await middle(stage)
        await asyncio.sleep(2)
        assert stage.read_dead() == {}
        _, causes = await stage.health()
        assert any("lift the block" in cause for cause in causes)
        await call(stage.url, "PUT", f"/events_{stage.environment}_*/_settings", {"index.blocks.write": None})
        await stage.end()


async def test_without_ids_a_bad_event_dies_and_the_others_are_there(staged: Staging) -> None:
    events = bad(5)
    async with staged(NUMBERS, FOREBAY_OPEN_SEARCH_AUTO_ID="true") as stage:
        await stage.send([*good(95), *events])
        await stage.send_good_until_dead(events, 5)
        await stage.wait(lambda: stage.read_dead().keys() == {event["log_id"] for event in events})
        count = len(stage.client.accepted) - len(events)
        await stage.wait_delivered(count)
        await stage.wait(lambda: stage.count_pending() == 0)
        assert await stage.index.count() == count


async def test_a_new_month_begins_with_a_flood_of_bad_events(staged: Staging) -> None:
    events = bad(3000, timestamp="2026-10-03T00:00:00Z")
    async with staged(NUMBERS) as stage:
        await stage.send(events, batch=500)
        for _ in range(10):
            # Those of the other month have nothing to do with it.
            sent = len(stage.client.accepted)
            await stage.send(good(50))
            await stage.wait_delivered(sent - 3000 + 50, GOING_ON_S)
        assert stage.read_dead() == {}
        await stage.send_good_until_dead(events, 20, timestamp="2026-10-03T00:00:00Z")
        await stage.end(dead=events)


async def test_the_embedded_store_takes_every_event_whatever_the_mapping_would_refuse(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {**QUICK, "FOREBAY_EMBEDDED_STORE": str(tmp_path / "events.db")}) as server:
        await asyncio.to_thread(server.start)
        client = Client(server.url, server.token())
        await client.send([*good(500), *bad(500)], batch=50, connections=4)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await client.send([*good(500), *bad(500)], batch=50, connections=4)
        assert await asyncio.to_thread(server.stop) == 0
        with closing(sqlite3.connect(tmp_path / "spool.db")) as connection:
            assert connection.execute("SELECT events, dead_letters FROM totals").fetchall() == [(0, 0)]
