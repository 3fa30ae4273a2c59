"""Metrics for Prometheus: read from counters and state at a scrape, so that counting costs the hot path nothing.

With several workers, whichever is asked answers for all. What a process counts carries the label `worker`: a worker
that was started again begins at nought, which in a sum would look like so many more events. What there is of something
now is a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from forebay import __version__
from forebay.admin.snapshot import PROCESS, ServerSnapshot
from forebay.pipeline.gate import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

EVENT_COUNTERS = (
    ("accepted", "Events told to the client as safe"),
    ("rejected", "Events and requests told to the client as its mistake"),
    ("uncorrected", "Events whose `sent_at` is too far from our clock to correct their `timestamp`"),
    ("unavailable", "Events told to the client to send again"),
    ("overflowed", "Events stored while the channel had no room"),
    ("redelivered", "Events taken from the spool back into the channel"),
)
WORK_COUNTERS = (
    ("bulks", "Bulks that have ended"),
    ("unexpected_answers", "Bulks with an answer that nobody expects of the sink"),
    ("bulk_seconds", "Time that bulks took, together"),
    ("commits", "Commits of the spool"),
    ("commit_seconds", "Time that commits took, together"),
    ("commit_failures", "Commits that failed"),
)


def render(server: ServerSnapshot) -> bytes:
    """Return the metrics in Prometheus's text format."""
    return generate_latest(_Collector(server))


class _Collector(Collector):
    def __init__(self, server: ServerSnapshot) -> None:
        self._server = server
        self._snapshots = [snapshot for _, snapshot in sorted(server.snapshots.items())]

    def collect(self) -> Iterable[Metric]:
        """Yield every metric."""
        yield InfoMetricFamily("forebay", "The version that runs", {"version": __version__})
        yield GaugeMetricFamily("forebay_workers", "Processes that share the port", self._server.workers)
        yield GaugeMetricFamily("forebay_workers_up", "Those of them that answer", self._server.answered)
        yield from self._event_metrics()
        yield from self._work_metrics()
        yield from self._state_metrics()
        yield from self._process_metrics()

    def _event_metrics(self) -> Iterable[Metric]:
        for name, text in EVENT_COUNTERS:
            yield self._count(f"forebay_events_{name}", text, name)
        yield self._count_each("forebay_outcomes", "Events by what became of them in a bulk", "outcome", "outcomes")
        yield self._count_each("forebay_requests", "Answers of the event addresses", "status", "requests")
        yield self._count_each("forebay_crowded", "Connections and requests that gave way", "gave_way", "crowded")

    def _work_metrics(self) -> Iterable[Metric]:
        for name, text in WORK_COUNTERS:
            yield self._count(f"forebay_{name}", text, name)
        in_flight = sum(snapshot.counters.bulks_in_flight for snapshot in self._snapshots)
        yield GaugeMetricFamily("forebay_bulks_in_flight", "Bulks under way", in_flight)

    def _state_metrics(self) -> Iterable[Metric]:
        states = [snapshot.state for snapshot in self._snapshots]
        for name, text, attribute in (
            ("channel_events", "Events that wait in memory", "channel_events"),
            ("channel_bytes", "Their bytes", "channel_bytes"),
            ("spool_events", "Events in the spool: not settled yet", "stored_events"),
            ("spool_bytes", "What they take on disk", "stored_bytes"),
            ("pending_events", "Events in the spool and not in memory: they wait for redelivery", "pending_events"),
            ("bulks_in_flight_max", "How many bulks the sink is found to take at once", "bulks_in_flight_max"),
        ):
            yield GaugeMetricFamily(f"forebay_{name}", text, sum(map(attrgetter(attribute), states)))
        sink_up = all(state.sink_health is Health.GOOD for state in states)
        # An orphan's spool takes no events anyway.
        taking = [snapshot.state for snapshot in self._snapshots if snapshot.number <= self._server.workers]
        spool_up = all(not state.spool_failure and not state.spool_full for state in taking)
        yield GaugeMetricFamily("forebay_sink_up", "1 while the sink takes events", int(sink_up))
        yield GaugeMetricFamily("forebay_spool_up", "1 while the spool takes events", int(spool_up))
        on_hold = {hold.index_name for state in states for hold in state.holds}
        yield GaugeMetricFamily(
            "forebay_indices_on_hold", "Indices whose events wait until an operator acts", len(on_hold)
        )
        paused = GaugeMetricFamily("forebay_sink_paused", "1 while the sink takes nothing, by why", labels=["cause"])
        for cause in sorted({state.sink_error_type for state in states if state.sink_health is Health.PAUSED}):
            paused.add_metric([cause], 1)
        yield paused

    def _process_metrics(self) -> Iterable[Metric]:
        for family in PROCESS.collect():
            samples, family.samples = family.samples, []
            for snapshot in self._snapshots:
                for sample in samples:
                    if sample.name in snapshot.process:
                        family.add_sample(sample.name, self._labels(snapshot.number), snapshot.process[sample.name])
            yield family

    def _count(self, name: str, text: str, attribute: str) -> Metric:
        family = CounterMetricFamily(name, text, labels=[*self._labels(0)])
        for snapshot in self._snapshots:
            family.add_metric([*self._labels(snapshot.number).values()], getattr(snapshot.counters, attribute))
        return family

    def _count_each(self, name: str, text: str, label: str, attribute: str) -> Metric:
        family = CounterMetricFamily(name, text, labels=[label, *self._labels(0)])
        for snapshot in self._snapshots:
            counts: Mapping[object, int] = getattr(snapshot.counters, attribute)
            for key, count in list(counts.items()):
                labels = [str(getattr(key, "value", key)), *self._labels(snapshot.number).values()]
                family.add_metric(labels, count)
        return family

    def _labels(self, number: int) -> dict[str, str]:
        """Return the label of a process; a single one needs none."""
        return {"worker": str(number)} if self._server.is_supervised else {}
