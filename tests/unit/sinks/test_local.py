"""The embedded store takes each event once, loses none that it said it has, and can be read beside its writer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from msgspec import Raw

from forebay.errors import SinkUnreachable
from forebay.model import DELIVERED, DUPLICATE, Address, Document, Entry, EventInfo, Verdict, encode_entry
from forebay.sinks import local
from forebay.sinks.local import LocalReader, LocalSink
from forebay.sinks.port import Query

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
INDEX = "events_local_2026-11"
NO_CONDITION: Mapping[str, str] = MappingProxyType({})
UNREADABLE = b'{"create":{"_index":"i","_id":"x"}}\n{"received_at":"never"}\n'


def make_entry(
    log_id: str, received_at: datetime = NOON, param: bytes = b"{}", index: str = INDEX, page: str = "/home"
) -> Entry:
    info = EventInfo(page=page, event="click", param=Raw(param))
    return encode_entry(Address(index, log_id), Document(received_at, received_at, log_id, "user", info))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder?#" / "events.db"


@pytest.fixture
async def sink(path: Path) -> AsyncIterator[LocalSink]:
    path.parent.mkdir()
    sink = LocalSink(path)
    await sink.open()
    yield sink
    await sink.close()


async def search(
    path: Path, where: Mapping[str, str] = NO_CONDITION, received_after: str | None = None, limit: int = 100
) -> list[str]:
    found = await LocalReader(path).search(Query(where, received_after, limit))
    return [json.loads(bytes(document))["log_id"] for document in found]


async def count(path: Path, where: Mapping[str, str] = NO_CONDITION) -> int:
    return await LocalReader(path).count(Query(where))


async def test_same_log_id_in_the_same_index_is_one_event(sink: LocalSink, path: Path) -> None:
    assert await sink.deliver([make_entry("a"), make_entry("b"), make_entry("a")]) == [DELIVERED, DELIVERED, DUPLICATE]
    assert await sink.deliver([make_entry("b"), make_entry("c")]) == [DUPLICATE, DELIVERED]
    assert await sink.deliver([make_entry("a", index="events_local_2026-12")]) == [DELIVERED]
    assert await count(path) == 4


async def test_document_is_read_back_as_it_was_sent(sink: LocalSink, path: Path) -> None:
    entry = make_entry("a", param='{"key":"wörth\\n","n":1.50,"huge":1e400}'.encode())
    await sink.deliver([entry])

    (document,) = await LocalReader(path).search(Query({}))

    assert bytes(document) == entry.splitlines()[1]


@pytest.mark.parametrize(
    "unreadable",
    [b"", b"no newline", b"not json\n{}\n", UNREADABLE, make_entry("a").replace(b"/home", b"/h\xffme"), b"{}\n{}\n"],
)
async def test_unreadable_entry_dies_alone(sink: LocalSink, path: Path, unreadable: Entry) -> None:
    outcomes = await sink.deliver([make_entry("a"), unreadable, make_entry("b")])

    assert [outcome.verdict for outcome in outcomes] == [Verdict.DELIVERED, Verdict.DEAD, Verdict.DELIVERED]
    assert outcomes[1].error_type == "unreadable_entry"
    assert outcomes[1].reason
    assert await search(path) == ["b", "a"]


async def test_full_disk_has_every_entry_tried_again_and_stores_none(sink: LocalSink, path: Path) -> None:
    await sink.deliver([make_entry("first")])

    def limit_size() -> None:
        assert sink._connection is not None
        (pages,) = sink._connection.execute("PRAGMA page_count").fetchone()
        sink._connection.execute(f"PRAGMA max_page_count = {pages}")

    await sink._call(limit_size)
    large = [make_entry(str(number), param=b'{"x":"%b"}' % (b"x" * 9000)) for number in range(5)]

    outcomes = await sink.deliver([*large, UNREADABLE])

    assert {outcome.verdict for outcome in outcomes} == {Verdict.RETRY}
    assert {outcome.error_type for outcome in outcomes} == {"SQLITE_FULL"}
    assert "full" in outcomes[0].reason
    assert await search(path) == ["first"]
    # The limit went with the connection that failed.
    assert await sink.deliver(large) == [DELIVERED] * 5


async def test_locked_file_has_every_entry_tried_again(
    sink: LocalSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BUSY_TIMEOUT_S", 0.01)
    # The connection that is open already keeps its own time limit.
    await sink._call(sink._disconnect)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcomes = await sink.deliver([make_entry("a"), make_entry("b")])

    assert [outcome.verdict for outcome in outcomes] == [Verdict.RETRY] * 2
    assert outcomes[0].error_type == "SQLITE_BUSY"
    assert await sink.deliver([make_entry("a")]) == [DELIVERED]


async def test_sink_that_cannot_be_opened_is_met_again_at_delivery(tmp_path: Path) -> None:
    path = tmp_path / "later" / "events.db"
    sink = LocalSink(path)
    await sink.open()
    assert [outcome.verdict for outcome in await sink.deliver([make_entry("a")])] == [Verdict.RETRY]

    path.parent.mkdir()

    assert await sink.deliver([make_entry("a")]) == [DELIVERED]
    await sink.close()


async def test_events_outlive_the_sink_that_took_them(path: Path) -> None:
    path.parent.mkdir()
    for outcome in (DELIVERED, DUPLICATE):
        sink = LocalSink(path)
        await sink.open()
        assert await sink.deliver([make_entry("a")]) == [outcome]
        await sink.close()


async def test_delivery_does_not_hold_up_the_event_loop(sink: LocalSink, path: Path) -> None:
    turns = 0
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        delivery = asyncio.create_task(sink.deliver([make_entry("a")]))
        while turns < 10:
            await asyncio.sleep(0.01)
            turns += 1
        assert not delivery.done()
        other.execute("ROLLBACK")
        assert await delivery == [DELIVERED]


async def test_commit_is_synced(sink: LocalSink) -> None:
    def read_settings() -> tuple[Any, ...]:
        assert sink._connection is not None
        return tuple(
            sink._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        )

    assert await sink._call(read_settings) == ("wal", 2)


async def test_reader_returns_the_newest_first_whatever_the_fraction_of_the_second(sink: LocalSink, path: Path) -> None:
    times = {"whole": timedelta(), "micro": timedelta(microseconds=5), "later": timedelta(seconds=1)}
    await sink.deliver([make_entry(log_id, NOON + after) for log_id, after in times.items()])

    assert await search(path) == ["later", "micro", "whole"]
    assert await search(path, limit=1) == ["later"]
    assert await search(path, limit=0) == []
    assert await search(path, received_after="2026-11-24T12:00:00Z") == ["later", "micro"]
    assert await search(path, received_after="2026-11-24T13:00:00.000005+01:00") == ["later"]


@pytest.mark.parametrize(
    "where",
    [
        {"page": "/home", "event": "click", "user_id": "user", "log_id": "a"},
        {"event_info.page": "/home"},
        {"param.text": 'it\'s "so"'},
        {"param.whole": "7"},
        {"param.fraction": "1.50"},
        {"param.large": "123456789012345678901234567890"},
        {"param.yes": "true"},
        {"param.no": "false"},
        {"param.empty": ""},
        {"param.deep.er": "down"},
        {"param.list": "two"},
        {"param.list": "3"},
        {"param.objects.id": "y"},
        {'param.a"b]$': "quoted"},
        {"param.'; DROP TABLE events; --": "sql"},
        {"param.schlüssel": "wört"},
    ],
)
async def test_value_is_found_by_its_text(sink: LocalSink, path: Path, where: dict[str, str]) -> None:
    param = {
        "text": 'it\'s "so"',
        "whole": 7,
        "large": 123456789012345678901234567890,
        "yes": True,
        "no": False,
        "empty": "",
        "deep": {"er": "down"},
        "list": ["one", "two", 3],
        "objects": [{"id": "x"}, {"id": "y"}],
        'a"b]$': "quoted",
        "'; DROP TABLE events; --": "sql",
        "schlüssel": "wört",
    }
    text = json.dumps(param).replace('"whole"', '"fraction": 1.50, "whole"')
    await sink.deliver([make_entry("a", param=text.encode()), make_entry("b", page="/other")])

    assert await count(path, where) == 1
    assert await search(path, where) == ["a"]


@pytest.mark.parametrize(
    "where",
    [
        {"page": "/hom"},
        {"page": "/home", "event": "other"},
        {"param": "{}"},
        {"param.none": "null"},
        {"param.none": "None"},
        {"param.object": "x"},
        {"param.yes": "True"},
        {"param.whole": "7.0"},
        {"param.text.further": "x"},
        {"param.": ""},
        {"param": ""},
        {"nothing": ""},
    ],
)
async def test_value_that_is_not_there_is_not_found(sink: LocalSink, path: Path, where: dict[str, str]) -> None:
    await sink.deliver([make_entry("a", param=b'{"none":null,"object":{"k":"x"},"yes":true,"whole":7,"text":"x"}')])

    assert await count(path, where) == 0
    assert await search(path, where) == []


async def test_reader_of_no_file_finds_nothing_and_makes_none(path: Path) -> None:
    assert await search(path) == []
    assert await count(path) == 0
    assert not path.parent.exists()


async def test_reader_of_a_file_that_is_only_begun_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.touch()

    assert await search(path) == []
    assert await count(path) == 0


async def test_reader_of_something_else_says_that_it_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_text("no database" * 1000)

    with pytest.raises(SinkUnreachable, match=r"events\.db cannot be read: file is not a database"):
        await LocalReader(path).search(Query({}))


async def test_reader_writes_nothing(sink: LocalSink, path: Path) -> None:
    await sink.deliver([make_entry("a")])
    with (
        contextlib.closing(LocalReader(path)._open()) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("DELETE FROM events")
