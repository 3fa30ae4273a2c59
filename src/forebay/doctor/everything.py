"""All that the doctor looks at, in the order in which it is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from forebay.byte_size import format_bytes
from forebay.doctor import clocks, server, spools
from forebay.doctor import settings as own_settings
from forebay.doctor.bounded import Check, run_checks, start
from forebay.errors import SettingsError
from forebay.findings import Finding, Level
from forebay.settings import Settings, load_settings, unknown_variables
from forebay.sinks.months import judge_months
from forebay.sinks.selection import make_month_keeper

CHECK_S_MAX = 30.0
FIND_S_MAX = 5.0
INTEGRITY_S_MAX = 10.0
"""How long to look at a spool's file where nobody asked for all of it: somebody waits for the other lines."""


def look_at_all(*, full: bool) -> Iterator[Finding]:
    """Look at everything; with `full`, at every page and group of the spools, however long it takes."""
    try:
        settings = load_settings()
    except SettingsError as error:
        yield from own_settings.judge_refusal(error)
        return
    secret = server.read_secret(settings)
    secret_chars = None if secret is None else len(secret)
    yield from own_settings.judge_settings(settings, unknown_variables(), secret_chars)
    try:
        paths = start(lambda: spools.find(settings)).result(FIND_S_MAX)
    except TimeoutError:
        paths = []
        what = f"spool {settings.database_url.name}"
        yield Finding(Level.FAIL, what, "its folder does not answer", "see its disk, or network file system")
    yield from run_checks(list(_make_checks(settings, paths, full=full)))


def _make_checks(settings: Settings, paths: list[Path], *, full: bool) -> Iterator[Check]:
    """Return what to look at; all of it begins at once, and is shown in this order."""
    yield Check("server", lambda: server.look_at_server(settings), CHECK_S_MAX)
    for path in paths or [settings.database_url]:
        yield Check(f"spool {path.name}", partial(spools.look_at_spool, settings, path), CHECK_S_MAX)
    integrity_s_max = None if full else INTEGRITY_S_MAX
    for path in paths:
        look = partial(spools.look_at_integrity, path, integrity_s_max)
        yield Check(f"file {path.name}", look, None if full else CHECK_S_MAX)
    yield Check("spool room", lambda: spools.look_at_room(settings, paths), CHECK_S_MAX)
    if settings.open_search_dns:
        yield Check("opensearch", lambda: _look_at_opensearch(settings), CHECK_S_MAX)
    else:
        yield Check("store", lambda: _look_at_store(settings), CHECK_S_MAX)
    yield Check("clock", lambda: clocks.look_at_clocks(settings, paths), CHECK_S_MAX)


def _look_at_opensearch(settings: Settings) -> list[Finding]:
    from forebay.doctor.opensearch import check_up  # noqa: PLC0415 - aiohttp takes 25 MiB

    return asyncio.run(check_up(settings))


def _look_at_store(settings: Settings) -> list[Finding]:
    what = f"store {settings.store_path.name}"
    if not settings.store_path.exists():
        return [Finding(Level.OK, what, "no event has been delivered yet")]
    months = asyncio.run(make_month_keeper(settings).list_months())
    documents = sum(month.documents for month in months)
    size = format_bytes(settings.store_path.stat().st_size)
    names = [month.name for month in months]
    return [
        Finding(Level.OK, what, f"{documents} events in {len(months)} months, {size}"),
        judge_months("months", names, settings.server_environment, settings.oldest_month),
    ]
