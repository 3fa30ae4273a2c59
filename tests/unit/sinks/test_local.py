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

from forebay.document import Document, EventInfo, encode_entry
from forebay.errors import SinkUnreachable
from forebay.model import DELIVERED, DUPLICATE, Address, Entry, Verdict
from forebay.sinks import local
from forebay.sinks.local import LocalSink
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
    sink = LocalSink(path, "local")
    await sink.open()
    yield sink
    await sink.close()


async def search(
    path: Path, fields: Mapping[str, str] = NO_CONDITION, received_after: str | None = None, limit: int = 100
) -> list[str]:
    found = await LocalSink(path, "local").search(Query(fields, received_after, limit))
    return [json.loads(bytes(document))["log_id"] for document in found]


async def count(path: Path, fields: Mapping[str, str] = NO_CONDITION) -> int:
    return await LocalSink(path, "local").count(Query(fields))


async def test_same_log_id_in_the_same_index_is_one_event(sink: LocalSink, path: Path) -> None:
    assert await sink.deliver([make_entry("a"), make_entry("b"), make_entry("a")]) == [DELIVERED, DELIVERED, DUPLICATE]
    assert await sink.deliver([make_entry("b"), make_entry("c")]) == [DUPLICATE, DELIVERED]
    assert await sink.deliver([make_entry("a", index="events_local_2026-12")]) == [DELIVERED]
    assert await count(path) == 4


async def test_document_is_read_back_as_it_was_sent(sink: LocalSink, path: Path) -> None:
    entry = make_entry("a", param='{"key":"wörth\\n","n":1.50,"huge":1e400}'.encode())
    await sink.deliver([entry])

    (document,) = await LocalSink(path, "local").search(Query({}))

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


async def test_full_disk_has_every_entry_tried_again_and_stores_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    first = LocalSink(path, "local")
    await first.deliver([make_entry("first")])
    await first.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    monkeypatch.setattr(local, "SETTINGS", (*local.SETTINGS, f"PRAGMA max_page_count = {pages}"))
    sink = LocalSink(path, "local")
    await sink.open()
    monkeypatch.undo()
    large = [make_entry(str(number), param=b'{"x":"%b"}' % (b"x" * 9000)) for number in range(5)]

    outcomes = await sink.deliver([*large, UNREADABLE])

    assert {outcome.verdict for outcome in outcomes} == {Verdict.RETRY}
    assert {outcome.error_type for outcome in outcomes} == {"SQLITE_FULL"}
    assert "full" in outcomes[0].reason
    assert await search(path) == ["first"]
    # The limit went with the connection that failed.
    assert await sink.deliver(large) == [DELIVERED] * 5
    await sink.close()


async def test_locked_file_has_every_entry_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    monkeypatch.setattr(local, "BUSY_TIMEOUT_S", 0.01)
    sink = LocalSink(path, "local")
    await sink.open()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcomes = await sink.deliver([make_entry("a"), make_entry("b")])

    assert [outcome.verdict for outcome in outcomes] == [Verdict.RETRY] * 2
    assert outcomes[0].error_type == "SQLITE_BUSY"
    assert await sink.deliver([make_entry("a")]) == [DELIVERED]
    await sink.close()


async def test_sink_that_cannot_be_opened_is_met_again_at_delivery(tmp_path: Path) -> None:
    path = tmp_path / "later" / "events.db"
    sink = LocalSink(path, "local")
    await sink.open()
    assert [outcome.verdict for outcome in await sink.deliver([make_entry("a")])] == [Verdict.RETRY]

    path.parent.mkdir()

    assert await sink.deliver([make_entry("a")]) == [DELIVERED]
    await sink.close()


async def test_events_outlive_the_sink_that_took_them(path: Path) -> None:
    path.parent.mkdir()
    for outcome in (DELIVERED, DUPLICATE):
        sink = LocalSink(path, "local")
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


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, sqlite3.Connection]]:
    """Return the connections that are opened from now on, with the names of their files."""
    opened = []
    connect = sqlite3.connect

    def remember(name: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(name, check_same_thread=False, **options)
        opened.append((str(name), connection))
        return connection

    monkeypatch.setattr(sqlite3, "connect", remember)
    return opened


async def test_commit_is_synced(connections: list[tuple[str, sqlite3.Connection]], sink: LocalSink) -> None:
    assert await sink.deliver([make_entry("a")]) == [DELIVERED]

    ((_, connection),) = connections
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]


async def test_reader_returns_the_newest_first_whatever_the_fraction_of_the_second(sink: LocalSink, path: Path) -> None:
    times = {"whole": timedelta(), "micro": timedelta(microseconds=5), "later": timedelta(seconds=1)}
    await sink.deliver([make_entry(log_id, NOON + after) for log_id, after in times.items()])

    assert await search(path) == ["later", "micro", "whole"]
    assert await search(path, limit=1) == ["later"]
    assert await search(path, limit=0) == []
    assert await search(path, received_after="2026-11-24T12:00:00Z") == ["later", "micro"]
    assert await search(path, received_after="2026-11-24T13:00:00.000005+01:00") == ["later"]


@pytest.mark.parametrize(
    "fields",
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
async def test_value_is_found_by_its_text(sink: LocalSink, path: Path, fields: dict[str, str]) -> None:
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

    assert await count(path, fields) == 1
    assert await search(path, fields) == ["a"]


@pytest.mark.parametrize(
    "fields",
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
async def test_value_that_is_not_there_is_not_found(sink: LocalSink, path: Path, fields: dict[str, str]) -> None:
    await sink.deliver([make_entry("a", param=b'{"none":null,"object":{"k":"x"},"yes":true,"whole":7,"text":"x"}')])

    assert await count(path, fields) == 0
    assert await search(path, fields) == []


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
        await LocalSink(path, "local").search(Query({}))


async def test_reading_opens_the_file_so_that_nothing_can_be_written(
    sink: LocalSink, connections: list[tuple[str, sqlite3.Connection]]
) -> None:
    await sink.deliver([make_entry("a")])
    await sink.search(Query({}))
    await sink.count(Query({}))
    await sink.list_months()
    await sink.check()

    assert [name.rpartition("?")[2] for name, _ in connections] == ["mode=ro"] * 4


# -- months


@pytest.fixture
async def prod(path: Path) -> AsyncIterator[LocalSink]:
    """Return a store of two months, and of one of another environment."""
    path.parent.mkdir()
    sink = LocalSink(path, "prod")
    counts = {"events_prod_2026-02": 25, "events_prod_2026-01": 2, "events_prod_eu_2026-01": 1}
    await sink.deliver(
        [make_entry(str(number), index=index) for index, count in counts.items() for number in range(count)]
    )
    yield sink
    await sink.close()


async def test_months_are_those_of_the_environment_oldest_first(prod: LocalSink) -> None:
    months = await prod.list_months()

    assert [(month.name, month.documents) for month in months] == [
        ("events_prod_2026-01", 2),
        ("events_prod_2026-02", 25),
    ]
    assert months[0].stored_bytes == 2 * len(make_entry("0").splitlines()[1])


async def test_month_is_deleted_piece_by_piece_and_no_other(
    prod: LocalSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "CHUNK_ROWS", 10)

    await prod.delete_month("events_prod_2026-02")
    await prod.delete_month("events_prod_2026-02")

    assert [month.name for month in await prod.list_months()] == ["events_prod_2026-01"]
    assert [month.documents for month in await LocalSink(path, "prod_eu").list_months()] == [1]


async def test_month_of_another_environment_is_refused(prod: LocalSink) -> None:
    with pytest.raises(ValueError, match="is no month of prod"):
        await prod.delete_month("events_prod_eu_2026-01")


async def test_store_that_is_not_there_has_no_months_and_is_not_made(path: Path) -> None:
    sink = LocalSink(path, "prod")

    assert await sink.list_months() == []
    await sink.delete_month("events_prod_2026-01")
    assert not path.exists()  # noqa: ASYNC240 - nothing else runs


# -- check


async def test_check_tells_the_events_months_and_size(prod: LocalSink) -> None:
    (result,), rights = await prod.check()

    assert (result.subject, result.advice, result.is_usable, rights) == ("store events.db", "", True, None)
    assert result.text.startswith("27 events in 2 months, ")


async def test_check_of_no_file_is_well_and_of_something_else_is_not(tmp_path: Path) -> None:
    sink = LocalSink(tmp_path / "events.db", "prod")
    ((nothing,), _) = await sink.check()
    (tmp_path / "events.db").write_bytes(b"no database" * 1000)
    ((broken,), _) = await sink.check()

    assert (nothing.is_usable, nothing.text) == (True, "no event has been delivered yet")
    assert not broken.is_usable
    assert "not a database" in broken.text
