"""Metrics for Prometheus: read from counters and state at a scrape, so that counting costs the hot path nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from forebay import __version__
from forebay.pipeline.gate import Health
from forebay.pipeline.pipeline import State
from forebay.telemetry.counters import Counters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """A Prometheus collector over the counters of this process."""

    def __init__(self, counters: Counters, state: Callable[[], State]) -> None:
        self._counters = counters
        self._state = state
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield every metric as it is now."""
        yield InfoMetricFamily("forebay", "The version that runs", {"version": __version__})
        yield from _event_metrics(self._counters)
        yield from _work_metrics(self._counters)
        yield from _state_metrics(self._state())


def _event_metrics(counters: Counters) -> Iterable[Metric]:
    for name, text, value in (
        ("accepted", "Events told to the client as safe", counters.accepted),
        ("rejected", "Events and requests told to the client as its mistake", counters.rejected),
        ("unavailable", "Events told to the client to send again", counters.unavailable),
        ("overflowed", "Events stored while the channel had no room", counters.overflowed),
        ("redelivered", "Events taken from the spool back into the channel", counters.redelivered),
    ):
        yield CounterMetricFamily(f"forebay_events_{name}", text, value)
    outcomes = CounterMetricFamily("forebay_outcomes", "Events by what became of them in a bulk", labels=["outcome"])
    for verdict, count in list(counters.outcomes.items()):
        outcomes.add_metric([verdict.value], count)
    yield outcomes
    requests = CounterMetricFamily("forebay_requests", "Answers of the event addresses", labels=["status"])
    for status, count in list(counters.requests.items()):
        requests.add_metric([str(status)], count)
    yield requests
    crowded = CounterMetricFamily("forebay_crowded", "Connections and requests that gave way", labels=["gave_way"])
    for crowding, count in list(counters.crowded.items()):
        crowded.add_metric([crowding.value], count)
    yield crowded


def _work_metrics(counters: Counters) -> Iterable[Metric]:
    for name, text, value in (
        ("bulks", "Bulks that have ended", counters.bulks),
        ("unexpected_answers", "Bulks with an answer that nobody expects of the sink", counters.unexpected_answers),
        ("bulk_seconds", "Time that bulks took, together", counters.bulk_seconds),
        ("commits", "Commits of the spool", counters.commits),
        ("commit_seconds", "Time that commits took, together", counters.commit_seconds),
        ("commit_failures", "Commits that failed", counters.commit_failures),
    ):
        yield CounterMetricFamily(f"forebay_{name}", text, value)
    yield GaugeMetricFamily("forebay_bulks_in_flight", "Bulks under way", counters.bulks_in_flight)


def _state_metrics(state: State) -> Iterable[Metric]:
    for name, text, value in (
        ("channel_events", "Events that wait in memory", state.channel_events),
        ("channel_bytes", "Their bytes", state.channel_bytes),
        ("spool_events", "Events in the spool: not settled yet", state.stored_events),
        ("spool_bytes", "What they take on disk", state.stored_bytes),
        ("pending_events", "Events in the spool and not in memory: they wait for redelivery", state.pending_events),
        ("bulks_in_flight_max", "How many bulks the sink is found to take at once", state.bulks_in_flight_max),
        ("indices_on_hold", "Indices whose events wait until an operator acts", len(state.holds)),
        ("sink_up", "1 while the sink takes events", int(state.sink_health is Health.GOOD)),
        ("spool_up", "1 while the spool takes events", int(not state.spool_failure and not state.spool_full)),
    ):
        yield GaugeMetricFamily(f"forebay_{name}", text, value)
    paused = GaugeMetricFamily("forebay_sink_paused", "1 while the sink takes nothing, by why", labels=["cause"])
    if state.sink_health is Health.PAUSED:
        paused.add_metric([state.sink_error_type], 1)
    yield paused
