"""Checks whether the sink answers, knows us, and lets us write: turns its own check into findings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, Level, fail
from forebay.errors import SettingsError
from forebay.settings import Settings
from forebay.sinks.port import CheckResult, SinkCheck
from forebay.sinks.selection import make_sink


def check_addresses(context: Context) -> Iterator[Finding]:
    """Check each address of the sink."""
    addresses = context.sink().addresses
    yield from map(_describe, addresses)
    if context.settings.open_search_dns and not any(address.is_usable for address in addresses):
        yield fail("no address answers as it should, so nothing else was asked")


def check_rights(context: Context) -> Iterator[Finding]:
    """Check whether we may write."""
    rights = context.sink().rights
    if rights is not None:
        yield _describe(rights)


def ask_sink(settings: Settings) -> SinkCheck:
    """Return the sink's own check; settings that no sink can be made with count as an address that does not work."""
    try:
        return asyncio.run(_ask(settings))
    except SettingsError as error:
        return SinkCheck([CheckResult("opensearch", " ".join(str(error).split()), is_usable=False)])


async def _ask(settings: Settings) -> SinkCheck:
    sink = make_sink(settings)
    try:
        return await sink.check()
    finally:
        await sink.close()


def _describe(result: CheckResult) -> Finding:
    level = Level.FAIL if not result.is_usable else Level.WARN if result.advice else Level.OK
    return Finding(level, result.text, result.advice, result.subject)
