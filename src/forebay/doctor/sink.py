"""Checks whether the sink answers, knows us, and lets us write: turns its own check into findings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, Level, fail
from forebay.errors import SettingsError
from forebay.settings import Settings
from forebay.sinks.port import CheckResult, Sink, SinkCheck
from forebay.sinks.selection import make_sink

T = TypeVar("T")


def check_addresses(context: Context) -> Iterator[Finding]:
    """Check each address of the sink."""
    addresses = context.sink().addresses
    yield from map(_describe, addresses)
    if context.settings.open_search_dns and not any(address.is_usable for address in addresses):
        yield fail("no address answers as it should, so nothing else was asked", "see the lines above")


def check_rights(context: Context) -> Iterator[Finding]:
    """Check whether we may write."""
    rights = context.sink().rights
    if rights is not None:
        yield _describe(rights)


def check_sink(settings: Settings) -> SinkCheck:
    """Return the sink's own check; settings that no sink can be made with count as an address that does not work."""
    try:
        return ask(settings, lambda sink: sink.check())
    except SettingsError as error:
        text = " ".join(str(error).split())
        return SinkCheck([CheckResult("opensearch", text, "correct the setting", is_usable=False)])


def ask(settings: Settings, question: Callable[[Sink], Awaitable[T]]) -> T:
    """Return the answer of the sink to a question.

    Raises:
        SettingsError: no sink can be made with these settings.
        SinkUnreachable: the sink did not answer, or refused.
    """

    async def run() -> T:
        sink = make_sink(settings)
        try:
            return await question(sink)
        finally:
            await sink.close()

    return asyncio.run(run())


def _describe(result: CheckResult) -> Finding:
    level = Level.FAIL if not result.is_usable else Level.WARN if result.advice else Level.OK
    return Finding(level, result.text, result.advice, result.subject)
