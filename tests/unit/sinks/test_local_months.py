"""The months of the embedded store are listed and deleted, those of one environment alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from forebay.errors import SinkUnreachable
from forebay.model import Address, Document, Entry, EventInfo, encode_entry
from forebay.sinks import local_months
from forebay.sinks.local import LocalSink
from forebay.sinks.local_months import LocalMonths

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_entry(index: str, log_id: str) -> Entry:
    return encode_entry(Address(index, log_id), Document(NOON, NOON, log_id, "user", EventInfo("/", "click")))


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a store of two months, and of one of another environment."""
    path = tmp_path / "events.db"
    sink = LocalSink(path)
    counts = {"events_prod_2026-02": 25, "events_prod_2026-01": 2, "events_prod_eu_2026-01": 1}
    await sink.deliver([make_entry(index, str(number)) for index, count in counts.items() for number in range(count)])
    await sink.close()
    return path


async def test_months_are_those_of_the_environment_oldest_first(path: Path) -> None:
    months = await LocalMonths(path, "prod").list_months()

    assert [(month.name, month.documents) for month in months] == [
        ("events_prod_2026-01", 2),
        ("events_prod_2026-02", 25),
    ]
    assert months[0].stored_bytes == 2 * len(make_entry("", "0").splitlines()[1])


async def test_month_is_deleted_piece_by_piece_and_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_months, "CHUNK_ROWS", 10)
    keeper = LocalMonths(path, "prod")

    await keeper.delete_month("events_prod_2026-02")
    await keeper.delete_month("events_prod_2026-02")

    assert [month.name for month in await keeper.list_months()] == ["events_prod_2026-01"]
    assert [month.documents for month in await LocalMonths(path, "prod_eu").list_months()] == [1]


async def test_month_of_another_environment_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="is no month of prod"):
        await LocalMonths(path, "prod").delete_month("events_prod_eu_2026-01")


async def test_store_that_is_not_there_or_no_store_holds_nothing_or_says_so(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    assert await LocalMonths(path, "prod").list_months() == []
    await LocalMonths(path, "prod").delete_month("events_prod_2026-01")
    assert not path.exists()

    path.write_bytes(b"no database" * 1000)
    with pytest.raises(SinkUnreachable, match="not a database"):
        await LocalMonths(path, "prod").list_months()
