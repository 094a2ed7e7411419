"""What Prometheus scrapes: this process's counters, and the installation's state from the views."""

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rollcall_kit.outbox import Connection

from http_api import installation

http_requests = Counter(
    "rollcall_http_requests_total", "Requests answered", ["method", "route", "status"]
)
http_seconds = Histogram(
    "rollcall_http_request_seconds", "Time to answer a request", ["method", "route"]
)


@dataclass(frozen=True, slots=True, eq=False)  # a registry tells collectors apart by identity
class _Snapshot(Collector):
    metrics: Sequence[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


async def scrape(connection: Connection) -> bytes:
    """Return all metrics in Prometheus' text form."""
    up = GaugeMetricFamily("rollcall_feed_up", "1 while the feed is read", labels=["feed"])
    errors = CounterMetricFamily(
        "rollcall_feed_errors", "Polls of a feed that failed", labels=["feed", "code"]
    )
    for feed in await installation.feeds(connection):
        up.add_metric([feed["name"]], float(feed["up"]))
        for error in feed["errors"]:
            errors.add_metric([feed["name"], error["code"]], error["count"])
    instances = GaugeMetricFamily(
        "rollcall_instances", "Instances", labels=["scale_set", "version", "health"]
    )
    for row in await installation.instance_metrics(connection):
        instances.add_metric([row["scale_set"], row["version"], row["health"]], row["count"])
    registry = CollectorRegistry()
    registry.register(_Snapshot([up, errors, instances, *await _upgrades(connection)]))
    return generate_latest() + generate_latest(registry)


async def _upgrades(connection: Connection) -> list[Metric]:
    """Return gauges, not counters: a set that is deleted takes its upgrades off the record."""
    upgrades = GaugeMetricFamily("rollcall_upgrades", "Upgrades on record", labels=["status"])
    faults = GaugeMetricFamily(
        "rollcall_upgrade_faults",
        "Upgrades on record that faulted, by the code of their error",
        labels=["code"],
    )
    by_status: Tally[str] = Tally()
    for row in await installation.upgrade_metrics(connection):
        by_status[row["status"]] += row["count"]
        if row["status"] == "Faulted":
            faults.add_metric([row["error_code"]], row["count"])
    for status, count in by_status.items():
        upgrades.add_metric([status], count)
    return [upgrades, faults]
