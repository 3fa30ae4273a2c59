"""Every check, in the order in which its lines are shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from forebay.doctor import clients, clocks, denials, months, server, sink, spool, spool_file, spool_room
from forebay.doctor import settings as own_settings
from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail
from forebay.doctor.opensearch import blocks, bulk_bytes, cluster, disks, ids, mapping, pipeline, shards, template
from forebay.doctor.opensearch.answers import Answers, NotAsked
from forebay.doctor.runner import Check, run_checks, start
from forebay.errors import SettingsError
from forebay.settings import Settings, load_settings
from forebay.sinks.months import index_of
from forebay.sinks.port import SinkCheck
from forebay.spool.files import find_spools

FIND_S_MAX = 5.0

SETTINGS = Check("settings", own_settings.check)

CHECKS = (
    Check("server", server.check),
    Check("spool", spool.check, is_of_spool=True),
    Check("file", spool_file.check, is_of_spool=True, is_long=True),
    Check("spool room", spool_room.check),
    Check("denials", denials.check),
    Check("clients", clients.check),
    Check("opensearch", sink.check_addresses),
    Check("cluster", cluster.check),
    Check("disks", disks.check),
    Check("cluster blocks", blocks.check_cluster),
    Check("months", months.check),
    Check("index blocks", blocks.check_months),
    Check("shards", shards.check),
    Check("template", template.check),
    Check("mapping", mapping.check),
    Check("ids", ids.check),
    Check("pipeline", pipeline.check),
    Check("bulk bytes", bulk_bytes.check),
    Check("rights", sink.check_rights),
    Check("clock", clocks.check),
)


def examine(*, is_full: bool) -> Iterator[Finding]:
    """Run every check; with `is_full`, those of the spools' files go to their end, however long it takes."""
    try:
        settings = load_settings()
    except SettingsError as error:
        for finding in own_settings.describe_refusal(error):
            yield finding._replace(subject=SETTINGS.subject)
        return
    context = make_context(settings, is_full=is_full)
    yield from run_checks([SETTINGS], context)
    try:
        spools = tuple(start(lambda: find_spools(settings.database_url)).result(FIND_S_MAX).values())
    except TimeoutError:
        spools = ()
        silent = fail("its folder does not answer", "see its disk, or network file system")
        yield silent._replace(subject=f"spool {settings.database_url.name}")
    yield from run_checks(CHECKS, replace(context, spools=spools))


def make_context(settings: Settings, *, is_full: bool = False) -> Context:
    """Return the context of settings, and start to ask the sink and OpenSearch."""
    now = datetime.now(UTC)
    checked = start(lambda: sink.check_sink(settings))
    answers = start(lambda: _ask_opensearch(settings, checked.result(), now))
    return Context(settings=settings, sink=checked.result, answers=answers.result, now=now, is_full=is_full)


def _ask_opensearch(settings: Settings, checked: SinkCheck, now: datetime) -> Answers:
    """Ask the hosts that answer: one that hangs would hang again for every question."""
    states = zip(settings.open_search_dns, checked.addresses, strict=False)
    hosts = [host for host, address in states if address.is_usable]
    if not hosts:
        raise NotAsked
    from forebay.doctor.opensearch.asking import ask_all  # noqa: PLC0415 - aiohttp takes 10 MB

    return asyncio.run(ask_all(settings, hosts, index_of(settings.server_environment, now, 0)))
