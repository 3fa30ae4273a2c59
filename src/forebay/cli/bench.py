"""`forebay bench`: how much this machine takes with these settings, and the limit."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from forebay.byte_size import format_bytes
from forebay.cli.options import AsJson
from forebay.cli.output import print_json, print_table, say
from forebay.settings import load_settings

if TYPE_CHECKING:
    from forebay.bench.result import Result


def bench(
    *,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Seconds of load.")] = 10,
    sink: Annotated[
        bool, typer.Option("--sink", help="Deliver to the configured sink, into an index that is deleted afterwards.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how many events this machine takes with these settings, and the limit.

    A server of its own takes them, on a spool of its own beside the configured one. It delivers to a stand-in that
    keeps nothing. The load comes from this machine, too.
    """
    from forebay.bench.run import run  # noqa: PLC0415 - no other command needs it

    settings = load_settings()
    if sink:
        say("the events go to the configured sink, into an index of their own, which is deleted afterwards", err=True)
    results = []
    # Closed: an error while printing must not leave the server of the measurement.
    with contextlib.closing(run(settings, seconds, use_sink=sink)) as measurements:
        for name, result in measurements:
            results.append((name, result))
            if as_json:
                print_json({"load": name, **result._asdict()})
    if not as_json:
        _show(results)


def _show(results: list[tuple[str, Result]]) -> None:
    rows = (
        ("events a second", *(f"{result.events_per_s:,.0f}" for _, result in results)),
        (
            "events a second of the server's processor",
            *(f"{result.events_per_processor_s:,.0f}" for _, result in results),
        ),
        ("time to an answer, p50", *(f"{result.p50_ms} ms" for _, result in results)),
        ("time to an answer, p99", *(f"{result.p99_ms} ms" for _, result in results)),
        ("cores busy with the server", *(result.server_cores for _, result in results)),
        ("cores busy with the load", *(result.load_cores for _, result in results)),
        ("one sync of the disk", *(f"{result.sync_ms} ms" for _, result in results)),
        ("commits a second", *(f"{result.commits_per_s:,.0f}" for _, result in results)),
        ("written to disk for an event", *(format_bytes(int(result.written_bytes_per_event)) for _, result in results)),
        ("delivered to the sink a second", *(f"{result.delivered_per_s:,.0f}" for _, result in results)),
        ("the server's peak memory", *(format_bytes(result.peak_memory_bytes) for _, result in results)),
    )
    print_table(("", *(name for name, _ in results)), rows)
    for name, result in results:
        if result.refused_events:
            say(f"{name}: {result.refused_events} were refused; see the limits in the settings")
        say(f"{name}: the limit is {result.limit}. To go on: {result.advice}")
