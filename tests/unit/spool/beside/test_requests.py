"""Burials are requests that stay until they are done."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.clock import now_ms
from forebay.spool.beside.inspection import inspect
from forebay.spool.beside.requests import Burial, Request
from forebay.spool.spool import Spool
from unit.pipeline.fakes import make_entry

BURIALS = [
    Burial(5),
    Burial(5, frozenset({"b", "a"})),
    Burial(5, index_name="events_test_2026-11"),
    Burial(6, refused=True),
    Burial(7, also_ahead=True),
]


@pytest.mark.parametrize("burial", BURIALS)
def test_a_request_says_all_of_a_burial(burial: Burial) -> None:
    assert Burial.read(burial.request) == burial


@pytest.mark.parametrize(("log_ids", "fits"), [((), True), (("a",), True), (("b", "a"), True), (("b",), False)])
def test_an_event_fits_by_its_log_id(log_ids: tuple[str, ...], fits: bool) -> None:  # noqa: FBT001 - a parameter
    assert Burial(5, frozenset(log_ids)).fits(make_entry("a")) is fits


def test_a_damaged_event_has_no_log_id() -> None:
    assert Burial(5).fits(b"not\nan entry\n")
    assert not Burial(5, frozenset({"a"})).fits(b"not\nan entry\n")


def test_an_event_is_meant_by_the_time_of_its_receipt() -> None:
    now = now_ms()
    later = now + 3_600_000
    assert [Burial(now).includes(at_ms) for at_ms in (now - 1, now, later)] == [True, False, False]
    assert [Burial(now, also_ahead=True).includes(at_ms) for at_ms in (now - 1, now, later)] == [True, False, True]


async def test_a_burial_stays_until_it_is_done_and_others_requests_do_not(tmp_path: Path, spool: Spool) -> None:
    with inspect(tmp_path / "spool.db") as inspection:
        for burial in BURIALS:
            inspection.ask(burial)
        inspection.ask(Request.RETRY)
    assert await spool.take_requests() == {"retry"}
    assert await spool.take_requests() == frozenset()
    assert set(await spool.list_burials()) == set(BURIALS)
    for burial in BURIALS[1:]:
        await spool.forget_burial(burial)
    assert await spool.list_burials() == BURIALS[:1]
