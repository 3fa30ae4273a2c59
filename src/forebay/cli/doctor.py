"""`forebay doctor`: looks at everything that events depend on, and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from forebay.cli import clock_checkup, server_checkup, settings_checkup, spool_checkup
from forebay.cli.bounded import Check, run_checks, start
from forebay.cli.output import AsJson, escape_controls, format_bytes, print_json
from forebay.errors import SettingsError
from forebay.findings import Finding, Level, is_well
from forebay.settings import Settings, load_settings, unknown_variables
from forebay.sinks.selection import make_month_keeper

CHECK_S_MAX = 30.0
FIND_S_MAX = 5.0
INTEGRITY_S_MAX = 10.0
"""How long to look at a spool's file where nobody asked for all of it: somebody waits for the other lines."""


def doctor(
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Check every page and group of the spools, however long.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at settings, spools, OpenSearch, clocks and the running server; exit with 1 where something has failed."""
    findings = []
    for finding in _look_at_all(full=full):
        findings.append(finding)
        _show(finding, as_json=as_json)
    raise typer.Exit(0 if is_well(findings) else 1)


def _look_at_all(*, full: bool) -> Iterator[Finding]:
    try:
        settings = load_settings()
    except SettingsError as error:
        yield from settings_checkup.judge_refusal(error)
        return
    secret = server_checkup.read_secret(settings)
    secret_chars = None if secret is None else len(secret)
    yield from settings_checkup.judge_settings(settings, unknown_variables(), secret_chars)
    try:
        paths = start(lambda: spool_checkup.find(settings)).result(FIND_S_MAX)
    except TimeoutError:
        paths = []
        what = f"spool {settings.database_url.name}"
        yield Finding(Level.FAIL, what, "its folder does not answer", "see its disk, or network file system")
    yield from run_checks(list(_make_checks(settings, paths, full=full)))


def _make_checks(settings: Settings, paths: list[Path], *, full: bool) -> Iterator[Check]:
    """Return what to look at; all of it begins at once, and is shown in this order."""
    yield Check("server", lambda: server_checkup.look_at_server(settings), CHECK_S_MAX)
    for path in paths or [settings.database_url]:
        yield Check(f"spool {path.name}", partial(spool_checkup.look_at_spool, settings, path), CHECK_S_MAX)
    integrity_s_max = None if full else INTEGRITY_S_MAX
    for path in paths:
        look = partial(spool_checkup.look_at_integrity, path, integrity_s_max)
        yield Check(f"file {path.name}", look, None if full else CHECK_S_MAX)
    yield Check("spool room", lambda: spool_checkup.look_at_room(settings, paths), CHECK_S_MAX)
    if settings.open_search_dns:
        yield Check("opensearch", lambda: _look_at_opensearch(settings), CHECK_S_MAX)
    else:
        yield Check("store", lambda: _look_at_store(settings), CHECK_S_MAX)
    yield Check("clock", lambda: clock_checkup.look_at_clocks(settings, paths), CHECK_S_MAX)


def _look_at_opensearch(settings: Settings) -> list[Finding]:
    from forebay.sinks.opensearch.checkup import check_up  # noqa: PLC0415 - aiohttp takes 25 MiB

    return asyncio.run(check_up(settings))


def _look_at_store(settings: Settings) -> list[Finding]:
    what = f"store {settings.store_path.name}"
    if not settings.store_path.exists():
        return [Finding(Level.OK, what, "no event has been delivered yet")]
    months = asyncio.run(make_month_keeper(settings).list_months())
    documents = sum(month.documents for month in months)
    size = format_bytes(settings.store_path.stat().st_size)
    return [Finding(Level.OK, what, f"{documents} events in {len(months)} months, {size}")]


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        level, what, text, advice = finding
        print_json({"level": level, "what": what, "finding": text, "advice": advice})
        return
    advice = f" → {finding.advice}" if finding.advice else ""
    typer.echo(escape_controls(f"{finding.level:<4}  {finding.what}  {finding.text}{advice}"))
