"""Metrics for Prometheus: read from counters and state at a scrape, so that counting costs the hot path nothing.

With several workers, each answers for all. A counter carries the label `worker`: a worker that was started again begins
at 0, so that a sum would fall. A gauge is the sum of all workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from operator import attrgetter

from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from forebay import __version__
from forebay.admin.snapshot import PROCESS, ServerSnapshot
from forebay.pipeline.gate import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

EVENT_COUNTERS = (
    ("accepted", "Events that the client was told are safe."),
    ("rejected", "Events and requests that were rejected as the client's mistake."),
    ("uncorrected", "Events whose `sent_at` is too far from the server's clock to correct their `timestamp`."),
    ("unavailable", "Events that the client was told to send again."),
    ("overflowed", "Events stored while the channel was full."),
    ("redelivered", "Events loaded from the spool into the channel."),
)
WORK_COUNTERS = (
    ("bulks", "Bulks that ended."),
    ("unexpected_answers", "Bulks with an unrecognised response."),
    ("bulk_seconds", "Total duration of all bulks in seconds."),
    ("commits", "Commits of the spool."),
    ("commit_seconds", "Total duration of all commits in seconds."),
    ("commit_failures", "Commits that failed."),
    ("denial_failures", "Looks at the denial list, one a second, at which it could not be read."),
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
        yield InfoMetricFamily("forebay", "The running version.", {"version": __version__})
        yield GaugeMetricFamily("forebay_workers", "Worker processes that share the port.", self._server.workers)
        yield GaugeMetricFamily("forebay_workers_up", "Worker processes that answer.", self._server.answered)
        yield from self._event_metrics()
        yield from self._work_metrics()
        yield from self._state_metrics()
        yield self._sole_client()
        yield from self._key_metrics()
        yield from self._process_metrics()

    def _event_metrics(self) -> Iterable[Metric]:
        for name, text in EVENT_COUNTERS:
            yield self._count(f"forebay_events_{name}", text, name)
        yield self._count_each("forebay_outcomes", "Outcomes of events in bulks.", "outcome", "outcomes")
        yield self._count_each(
            "forebay_requests",
            "Responses of the event addresses, and to input that is no request, by status.",
            "status",
            "requests",
        )
        yield self._count_each(
            "forebay_crowded",
            "Connections and requests that were closed or refused for lack of room.",
            "gave_way",
            "crowded",
        )
        yield self._count_each("forebay_denied", "Requests that the denial list refused.", "kind", "denied")

    def _work_metrics(self) -> Iterable[Metric]:
        for name, text in WORK_COUNTERS:
            yield self._count(f"forebay_{name}", text, name)
        in_flight = sum(snapshot.counters.bulks_in_flight for snapshot in self._snapshots)
        yield GaugeMetricFamily("forebay_bulks_in_flight", "Bulks in flight.", in_flight)

    def _state_metrics(self) -> Iterable[Metric]:
        states = [snapshot.state for snapshot in self._snapshots]
        for name, text, attribute in (
            ("channel_events", "Events in the channel.", "channel_events"),
            ("channel_bytes", "Bytes of the events in the channel.", "channel_bytes"),
            ("spool_events", "Events in the spool: not settled yet.", "stored_events"),
            ("spool_bytes", "Bytes of the events in the spool, as stored; without dead letters.", "stored_bytes"),
            (
                "pending_events",
                "Events in the spool that are not in the channel: they wait for redelivery.",
                "pending_events",
            ),
            (
                "bulks_in_flight_max",
                "Bulks that may be in flight at once, as the gate has found out.",
                "bulks_in_flight_max",
            ),
        ):
            yield GaugeMetricFamily(f"forebay_{name}", text, sum(map(attrgetter(attribute), states)))
        sink_up = all(state.sink_health is Health.GOOD for state in states)
        # An orphan's spool takes no events anyway.
        taking = [snapshot.state for snapshot in self._snapshots if snapshot.number <= self._server.workers]
        denials = min(
            (one.counters.denials for one in self._snapshots if one.number <= self._server.workers), default=0
        )
        yield GaugeMetricFamily("forebay_denials", "Entries of the denial list that every worker has read.", denials)
        spool_up = all(not state.spool_failure and not state.spool_full for state in taking)
        yield GaugeMetricFamily("forebay_sink_up", "1 while the sink takes events, else 0.", int(sink_up))
        yield GaugeMetricFamily("forebay_spool_up", "1 while the spool takes events, else 0.", int(spool_up))
        on_hold = {hold.index_name for state in states for hold in state.holds}
        yield GaugeMetricFamily(
            "forebay_indices_on_hold", "Indices on hold: their events wait until an operator acts.", len(on_hold)
        )
        paused = GaugeMetricFamily("forebay_sink_paused", "1 while the sink takes nothing, by cause.", labels=["cause"])
        for cause in sorted({state.sink_error_type for state in states if state.sink_health is Health.PAUSED}):
            paused.add_metric([cause], 1)
        yield paused

    def _sole_client(self) -> Metric:
        text = "1 if all events came from this one address, and it is a private one: perhaps a proxy's."
        family = GaugeMetricFamily("forebay_sole_client", text, labels=["address"])
        clients = {client for snapshot in self._snapshots for client in snapshot.counters.clients}
        if len(clients) == 1 and ip_address(min(clients)).is_private:
            family.add_metric([min(clients)], 1)
        return family

    def _key_metrics(self) -> Iterable[Metric]:
        text = "Fetches of the keys of identity providers."
        yield self._count_each("forebay_key_fetches", text, "issuer", "key_fetches")
        text = "Those fetches that failed; the keys that were there stay in use."
        yield self._count_each("forebay_key_fetch_failures", text, "issuer", "key_fetch_failures")
        text = "Seconds since the keys of an identity provider were fetched last, in the worker with the oldest."
        ages = GaugeMetricFamily("forebay_keys_age_seconds", text, labels=["issuer"])
        now = time.time()
        fetched_at = [snapshot.counters.keys_fetched_at for snapshot in self._snapshots]
        for issuer in sorted({issuer for each in fetched_at for issuer in each}):
            ages.add_metric([issuer], now - min(each[issuer] for each in fetched_at if issuer in each))
        yield ages

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
