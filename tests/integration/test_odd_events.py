"""OpenSearch takes every event that got 200: as it is, or repaired after a refusal."""

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import aiohttp
import pytest

from forebay.errors import Rejection
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.single import SingleEvent
from forebay.intake.senders import Sender, encode_sender
from forebay.model import Entry, entry_address, entry_document, join_entries
from forebay.sinks.opensearch.repair import may_overwhelm, repair
from forebay.sinks.opensearch.template import PATH, TEMPLATE
from forebay.telemetry.counters import Counters
from testbed.servers.fixtures import OpenSearchAddress
from testbed.traffic.odd_events import OddEvents

EVENTS = 1_000
BUSY_S_MAX = 60
BULK_BYTES_MAX = 300_000
ALICE = encode_sender("alice")
RECEIVED_AT = datetime(2026, 11, 24, tzinfo=UTC)
LONG_KEY_BYTES = 8_000

Refusal = dict[str, Any]


class OpenSearch:
    """The real one, asked in bulks."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.environment = f"odd-{uuid.uuid4().hex[:8]}"
        self._url = url
        self._session = session

    async def put_template(self) -> None:
        """Put our index template in place."""
        await self._ask(PATH, json.dumps(TEMPLATE).encode(), "application/json")

    async def create(self, entries: list[Entry]) -> list[Refusal | None]:
        """Return for each entry why it was refused, if it was."""
        refusals: list[Refusal | None] = []
        for bulk in cut(entries):
            answer = await self._ask("/_bulk", join_entries(bulk), "application/x-ndjson")
            results = [item["create"] for item in json.loads(answer)["items"]]
            assert {result["status"] for result in results} <= {201, 400}
            refusals += [result.get("error") for result in results]
        return refusals

    async def sources(self, entries: list[Entry]) -> list[Any]:
        """Return the documents that are stored for these entries."""
        documents: list[Any] = []
        for bulk in cut(entries):
            places = [entry_address(entry) for entry in bulk]
            wanted = {"docs": [{"_index": place.index, "_id": place.log_id} for place in places]}
            answer = await self._ask("/_mget", json.dumps(wanted).encode(), "application/json")
            documents += [found["_source"] for found in read(answer)["docs"]]
        return documents

    async def search(self, query: Any) -> list[Any]:
        """Return the documents that a query finds."""
        await self._ask(f"/events_{self.environment}_*/_refresh", b"", "application/json")
        wanted = json.dumps({"query": query}).encode()
        answer = await self._ask(f"/events_{self.environment}_*/_search", wanted, "application/json")
        return [hit["_source"] for hit in read(answer)["hits"]["hits"]]

    async def forget(self) -> None:
        """Delete the documents: they are large, and the server is small and shared."""
        async with self._session.delete(f"{self._url}/events_{self.environment}_2026-11?ignore_unavailable=true"):
            pass

    async def _ask(self, path: str, body: bytes, media_type: str) -> bytes:
        headers = {"Content-Type": media_type}
        # Long events are much for a small heap, and until it is collected OpenSearch says "TRANSIENT" with a 429.
        async with asyncio.timeout(BUSY_S_MAX):
            while True:
                async with self._session.post(self._url + path, data=io.BytesIO(body), headers=headers) as response:
                    text = await response.read()
                if response.status != 429:
                    break
                await asyncio.sleep(0.2)
        assert response.status == 200, text[:1000]
        return text


def read(text: bytes) -> Any:
    """Decode JSON; a number is its characters in a tuple."""
    return json.loads(text, parse_int=lambda number: (number,), parse_float=lambda number: (number,))


def longest_key_bytes(entry: Entry) -> int:
    lengths_bytes: list[int] = []
    json.loads(
        entry_document(entry),
        parse_int=str,
        object_pairs_hook=lambda pairs: lengths_bytes.extend(len(key.encode()) for key, _ in pairs),
    )
    return max(lengths_bytes)


def cut(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    bulk: list[Entry] = []
    for entry in entries:
        if bulk and sum(map(len, bulk)) + len(entry) > BULK_BYTES_MAX:
            yield bulk
            bulk = []
        bulk.append(entry)
    if bulk:
        yield bulk


def make(maker: DocumentMaker, body: bytes, sender: Sender) -> Entry:
    parts, (result,) = maker.make(SingleEvent().decode(body).events, sender, RECEIVED_AT, None)
    if isinstance(result, Rejection):
        raise result
    (part,) = parts
    (entry,) = part.entries
    return entry


def make_odd_entries(seed: int, maker: DocumentMaker) -> list[Entry]:
    """Return the entries that intake makes of odd events, without those that it refuses."""
    random = Random(seed)
    odd = OddEvents(random)
    entries = []
    for number in range(EVENTS):
        device, app, system, agent = (
            text if text is None else text.encode() for text in (odd.header() for _ in range(4))
        )
        sender = encode_sender(f"user-{number}", device, app, system, agent)
        try:
            entries.append(make(maker, odd.body(f"{number}-{uuid.uuid4()}"), sender))
        except Rejection:
            continue
    return entries


@pytest.fixture
async def server(opensearch: OpenSearchAddress) -> AsyncIterator[OpenSearch]:
    async with aiohttp.ClientSession() as session:
        server = OpenSearch(opensearch.url, session)
        await server.put_template()
        yield server
        await server.forget()


@pytest.fixture
def maker(server: OpenSearch) -> DocumentMaker:
    return DocumentMaker(server.environment, datetime(2024, 1, 1, tzinfo=UTC), Counters(), require_log_id=False)


@pytest.mark.parametrize("seed", range(4))
async def test_odd_events_are_taken_as_they_are_or_repaired(
    server: OpenSearch, maker: DocumentMaker, seed: int
) -> None:
    entries = make_odd_entries(seed, maker)
    assert len(entries) > EVENTS * 0.9
    refusals = await server.create(entries)
    refused = [entry for entry, refusal in zip(entries, refusals, strict=True) if refusal]
    taken = [entry for entry, refusal in zip(entries, refusals, strict=True) if not refusal]
    assert len(refused) > EVENTS * 0.05

    repaired = [repair(entry) for entry in refused]
    assert [refusal for refusal in await server.create(repaired) if refusal] == []
    # Of a long key with nothing but `null` under it other versions make a term, so that it is moved nevertheless.
    needless = [entry for entry in taken if repair(entry) is not entry]
    assert [entry for entry in needless if longest_key_bytes(entry) < LONG_KEY_BYTES] == []
    assert await server.sources(taken + repaired) == [read(entry_document(entry)) for entry in taken + repaired]


ROOM_BYTES = 32_766 - len("event_info.param.event_info.param")
JUST_TOO_MUCH = {
    "digits": ('{"a":[%b]}', "1" * 1_000, "1" * 1_001),
    "digits of an exponent": ('{"a":%b}', "1e" + "0" * 998 + "1", "1e" + "0" * 999 + "1"),
    "a term": ('{"a":{"b":[["%b"]]}}', "x" * (ROOM_BYTES - 5), "x" * (ROOM_BYTES - 4)),
    "a term of a number": ('{"%b":-1.50}', "k" * (ROOM_BYTES - 7), "k" * (ROOM_BYTES - 6)),
    "a term of a word": ('{"%b":[true]}', "k" * (ROOM_BYTES - 6), "k" * (ROOM_BYTES - 5)),
    "a term of no text": ('{"%b":{"":""}}', "k" * (ROOM_BYTES - 3), "k" * (ROOM_BYTES - 2)),
    "a term of characters of many bytes": ('{"😀":"%b"}', "€" * ((ROOM_BYTES - 6) // 3), "€" * ((ROOM_BYTES - 3) // 3)),
    "a key that is there": ('{"a":{"b":1,%b:2}}', '"c"', '"\\u0062"'),
}


@pytest.mark.parametrize("case", JUST_TOO_MUCH)
async def test_an_event_is_repaired_exactly_if_it_is_too_much_for_opensearch(
    server: OpenSearch, maker: DocumentMaker, case: str
) -> None:
    form, *parts = JUST_TOO_MUCH[case]
    bodies = [f'{{"page":"/home","event":"click","param":{form.replace("%b", part)}}}'.encode() for part in parts]
    fitting, too_much = (make(maker, body, ALICE) for body in bodies)
    assert repair(fitting) is fitting
    assert [bool(refusal) for refusal in await server.create([fitting, too_much])] == [False, True]
    assert await server.create([repair(too_much)]) == [None]


async def test_an_event_is_found_by_its_short_values_and_keeps_the_long_ones_beside(
    server: OpenSearch, maker: DocumentMaker
) -> None:
    long = "x" * 40_000
    body = json.dumps({"page": "/home", "event": "crash", "param": {"code": "seven", "trace": long}})
    assert await server.create([repair(make(maker, body.encode(), ALICE))]) == [None]
    (document,) = await server.search({"term": {"event_info.param.code": "seven"}})
    assert document["event_info"]["param"] == {"code": "seven"}
    assert document["unindexed"] == [{"path": "/event_info/param/trace", "value": long}]


@pytest.mark.parametrize(
    "param", [{"k" * 8_000: list(range(8_000))}, {"a": [1] * 900_000}, {"k" * 32_000: {"a": ["b"] * 400_000}}]
)
async def test_an_event_over_which_opensearch_would_end_is_taken_in_another_form(
    server: OpenSearch, maker: DocumentMaker, param: Any
) -> None:
    entry = make(maker, json.dumps({"page": "/home", "event": "x", "param": param}).encode(), ALICE)
    assert may_overwhelm(entry)
    assert await server.create([repair(entry)]) == [None]
    assert await server.sources([repair(entry)]) == [read(entry_document(repair(entry)))]
